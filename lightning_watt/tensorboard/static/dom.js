// Elements made from plain values. Text goes in as text nodes only, so the name of a run stays text.

/**
 * @param {string} tag
 * @param {Object} props attributes; `on` holds listeners by event, `class`, `data-…`, `aria-…` are attributes; true and
 *   false set and leave out an attribute.
 * @param {...(Node|string|null)} children
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Puts text into an element, and touches the page only where it is another one than before. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A name that is cut in its middle where there is no room: its beginning gives way, its end stays. */
export function nameOf(whole) {
  const [start, end] = [el("span", { class: "start" }), el("span", { class: "end" })];
  const root = el("span", { class: "name", title: whole }, start, end);
  const show = (label) => {
    const at = Math.max(0, label.length - Math.min(12, Math.ceil(label.length / 2)));
    say(start, label.slice(0, at));
    say(end, label.slice(at));
  };
  return { root, show };
}

/** A labelled checkbox. */
export function checkbox(label, checked, onChange, props = {}) {
  const input = el("input", { type: "checkbox", checked, ...props, on: { change: () => onChange(input.checked) } });
  return el("label", { class: "check" }, input, el("span", {}, label));
}

/** Ticks a labelled checkbox, or takes its tick away. */
export function tick(label, on) {
  label.querySelector("input").checked = on;
}

/** A choice of one among few: radio buttons drawn as one bar. */
export function choice(legend, name, options, onChange) {
  const inputs = options.map((value) => el("input", { type: "radio", name, value, on: { change: () => onChange(value) } }));
  const bar = el(
    "fieldset",
    { class: "choice" },
    el("legend", {}, legend),
    ...inputs.map((input) => el("label", {}, input, el("span", {}, input.value))),
  );
  const show = (value) => inputs.forEach((input) => (input.checked = input.value === value));
  return { bar, show };
}

/** A card: a heading, what stands next to it, and a body. */
export function card(id, title, ...beside) {
  const body = el("div", { class: "body" });
  const note = el("p", { class: "note" });
  const heading = el("h2", { id: `${id}-title` }, title);
  const head = el("header", {}, heading, el("div", { class: "beside" }, ...beside));
  const root = el("section", { class: "card", id, "aria-labelledby": `${id}-title` }, head, body, note);
  return { root, body, note, heading };
}
