// All colours of the charts. Runs have the loud hues; stages are muted and told apart by lightness, so that no stage looks like a
// run. Each list has one set for light and one for dark ground.

// After Tableau's ten, which differ in grey as well.
const RUNS = {
  light: ["#4269d0", "#e07b00", "#c9344a", "#2a9d8f", "#3c8c40", "#9160c4", "#9c6b4e", "#d0559b", "#6c7a89", "#8a8a00"],
  dark: ["#7f9cf5", "#f5a742", "#f2727f", "#5fd0c2", "#7fcf83", "#bf97f0", "#c99b7d", "#f08cc4", "#a9b5c2", "#cfcf4a"],
};
const STAGES = {
  inherited_j: { light: "#d9dbde", dark: "#4a4e53" },
  train: { light: "#3c4656", dark: "#dfe6f2" },
  validate: { light: "#b3bfd2", dark: "#8d99ad" },
  test: { light: "#8fa39b", dark: "#b4c9c0" },
  predict: { light: "#c8bfae", dark: "#8c8474" },
  sanity_check: { light: "#dcd0d4", dark: "#6e6267" },
  tune: { light: "#c3cbb4", dark: "#6b7360" },
  other: { light: "#eceef0", dark: "#5d6166" },
  wasted: { light: "#6d2419", dark: "#ffd0c4" },
};
const INK = {
  light: { text: "#202124", soft: "#5f6368", line: "#e3e5e8", ground: "#ffffff", axis: "#9aa0a6", accent: "#c25500" },
  dark: { text: "#e8eaed", soft: "#9aa0a6", line: "#3a3d41", ground: "#26282b", axis: "#6f757c", accent: "#ffa552" },
};

/** The colour of a run or a group by its number; grey without one. */
export const runColour = (theme, number) => (number === null ? INK[theme].axis : RUNS[theme][number % RUNS[theme].length]);
export const stageColour = (theme, stage) => STAGES[stage][theme];
export const ink = (theme) => INK[theme];
export const palettes = () => ({ RUNS, STAGES });
