// plotly.js with this page's look: one font, quiet axes; and its mark-up switched off in names.

import { loadPlotly } from "./api.js";
import { el } from "./dom.js";
import { cut } from "./names.js";
import { ink } from "./palette.js";

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";

/** A name as plotly shows it literally: plotly reads tags and entities in its texts. */
export function literal(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** A name that fits next to a chart. */
export const clipped = (text, length) => literal(cut(text, length));

export function axis(theme, title, more = {}) {
  const { soft, line, axis } = ink(theme);
  return {
    title: { text: title, font: { size: 12, color: soft }, standoff: 8 },
    gridcolor: line,
    zeroline: false,
    linecolor: axis,
    showline: true,
    ticks: "outside",
    ticklen: 4,
    tickcolor: axis,
    tickfont: { color: soft },
    automargin: true,
    exponentformat: "power",
    ...more,
  };
}

/** An axis from zero to above the largest value; where that is beyond what plotly can divide, as plotly has it. */
export const fromZero = (most) => (most > 0 && most < 1e50 ? { range: [0, 1.1 * most] } : { rangemode: "tozero" });

/** An axis of percent with room at its ends, which does not go on where no accuracy can be: above 100 and below 0. */
export function percentAxis(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const span = Math.max(high - low, 4);
  const [from, to] = [(low + high) / 2 - 0.6 * span, (low + high) / 2 + 0.6 * span];
  const edge = 0.03 * span; // a mark at the limit is drawn whole
  return { range: [Math.max(from, -edge), Math.min(to, 100 + edge)] };
}

/** A logarithmic axis with room at its ends: more ticks where the range is short, whole powers where it is long. */
export function logAxis(values, low = Math.min(...values), high = Math.max(...values)) {
  const [from, to] = [Math.log10(low), Math.log10(high)];
  const margin = Math.max(0.08 * (to - from), 0.15); // one run has more than one tick
  const every = Math.max(1, Math.ceil((to - from) / 8));
  const steps = to - from < 0.6 ? [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9] : to - from < 3 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(from - margin); power <= to + margin + 1 && power <= 308; power++) {
    if (power % every === 0) for (const step of steps) ticks.push(step * 10 ** power);
  }
  const text = (value) => (value >= 1e-3 && value < 1e5 ? String(Number(value.toPrecision(2))) : `10<sup>${Math.log10(value)}</sup>`);
  const whole = ticks.filter((value) => Number.isFinite(value) && value > 0);
  return { type: "log", range: [from - margin, to + margin], tickmode: "array", tickvals: whole, ticktext: whole.map(text) };
}

/** A chart that is drawn again only where something about it changed, and at most once a frame. */
export class Chart {
  constructor(body, label, height) {
    this.height = height;
    // The room is there before the charting library is, so that nothing moves when it comes.
    this.place = el("div", { class: "chart", role: "figure", "aria-label": label, style: `min-height: ${height}px` });
    this.body = body;
    this.last = "";
    this.next = null;
    this.drawing = Promise.resolve();
    body.append(this.place);
  }

  describe(text) {
    this.place.setAttribute("aria-label", text);
  }

  draw(theme, traces, layout, onClick = null) {
    if (this.next === null) requestAnimationFrame(() => this.#drawNext());
    this.next = { theme, traces, layout, onClick };
  }

  #drawNext() {
    const { theme, traces, layout, onClick } = this.next;
    this.next = null;
    const { text, ground, line } = ink(theme);
    const { axis, accent } = ink(theme);
    const whole = {
      height: this.height,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: axis, activecolor: accent },
      font: { family: FONT, size: 12, color: text },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 56, r: 16, t: 8, b: 44 },
      hoverlabel: { bgcolor: ground, bordercolor: line, font: { family: FONT, size: 12, color: text }, align: "left" },
      showlegend: false,
      dragmode: "zoom",
      uirevision: "kept", // a person's zoom outlives new data
      ...layout,
    };
    const now = JSON.stringify([traces, whole]);
    if (now === this.last) return;
    this.last = now;
    this.drawing = this.drawing.then(() => this.#react(traces, whole, onClick));
  }

  /** Plotly's own button saves SVG, which papers want; this one a picture of many pixels. */
  #png() {
    return {
      name: "png",
      title: "Download as PNG",
      icon: window.Plotly.Icons.disk,
      click: async (place) => {
        try {
          await window.Plotly.downloadImage(place, { format: "png", scale: 3, filename: this.body.closest("section").id });
        } catch {
          // It makes one picture at a time; the one before is not ready.
        }
      },
    };
  }

  async #react(traces, layout, onClick) {
    try {
      const plotly = await loadPlotly();
      await plotly.react(this.place, traces, layout, {
        displaylogo: false,
        responsive: true,
        // Named one by one: among those that plotly shows by itself, one uploads the chart to a company's servers.
        modeBarButtons: [["toImage", this.#png()], ["zoom2d", "pan2d", "resetScale2d"]],
        showSendToCloud: false,
        plotlyServerURL: "",
        toImageButtonOptions: { format: "svg", filename: this.body.closest("section").id },
      });
      this.place.removeAllListeners?.("plotly_click");
      if (onClick) this.place.on("plotly_click", ({ points }) => onClick(points[0]));
    } catch (error) {
      this.place.replaceWith(el("p", { class: "missing", role: "status" }, error.message));
    }
  }
}
