// TensorBoard around this frame: its reloads, by its message port, and its theme, by its page where that may be read.

const RELOADED = "experimental.DataReloaded";
const RUNS_CHANGED = "experimental.RunsChanged";

/** Calls back when TensorBoard has reloaded its data, by its button or its timer. */
export function onReload(callback) {
  if (window.parent === window) return;
  const channel = new MessageChannel();
  channel.port1.onmessage = ({ data }) => {
    const { type, id, isReply } = JSON.parse(data);
    if (isReply) return;
    channel.port1.postMessage(JSON.stringify({ type, id, payload: null, error: null, isReply: true }));
    if (type === RELOADED || type === RUNS_CHANGED) callback();
  };
  window.parent.postMessage("experimental.bootstrap", "*", [channel.port2]);
}

/** Calls back with "dark" or "light", now and at every change. */
export function onTheme(callback) {
  const page = hostBody();
  const preferred = window.matchMedia("(prefers-color-scheme: dark)");
  const tell = () => callback((page ? page.classList.contains("dark-mode") : preferred.matches) ? "dark" : "light");
  if (page) new MutationObserver(tell).observe(page, { attributes: true, attributeFilter: ["class"] });
  else preferred.addEventListener("change", tell);
  tell();
}

/** TensorBoard's body, which has the class `dark-mode` in the dark; null where the tab stands alone or in a stranger's page. */
function hostBody() {
  try {
    return window.parent === window ? null : window.parent.document.body;
  } catch {
    return null;
  }
}

/** The window whose address the person sees: TensorBoard's, or this one where TensorBoard's may not be read. */
export const addressed = () => (hostBody() ? window.parent : window);

/** Whether the tab can be seen: TensorBoard keeps the frames of other tabs, hidden. */
export const isVisible = () => !document.hidden && document.documentElement.clientWidth > 0;
