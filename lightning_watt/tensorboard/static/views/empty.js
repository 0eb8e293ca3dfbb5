// What stands here before the first measured run: what to add, and where to point TensorBoard.

import { el, say } from "../dom.js";

const SCRIPT = `import pytorch_lightning as pl
from lightning_watt import WattCallback

trainer = pl.Trainer(callbacks=[WattCallback()])
trainer.fit(model, datamodule=data)`;

export function empty() {
  const where = el("code", {});
  const place = el("p", {}, "TensorBoard reads ", where, ".");
  const root = el(
    "section",
    { class: "empty", "aria-labelledby": "empty-title" },
    el("h1", { id: "empty-title" }, "No measured run here yet"),
    el("p", {}, "This tab compares runs by their accuracy and their energy."),
    el(
      "ol",
      {},
      el("li", {}, "Add the callback to the training script:", el("pre", {}, el("code", {}, SCRIPT))),
      el(
        "li",
        {},
        "Point TensorBoard at the directory that the runs write to, or at one above it:",
        el("pre", {}, el("code", {}, "tensorboard --logdir lightning_logs")),
        place,
      ),
      el("li", {}, "What this machine can measure, and what it would take:", el("pre", {}, el("code", {}, "python -m lightning_watt"))),
    ),
    el("p", { class: "quiet" }, "The tab looks again every few seconds. The first numbers come with the run's first log rows."),
  );
  const update = (state) => {
    place.hidden = !state.where;
    say(where, state.where ?? "");
  };
  return { root, update };
}
