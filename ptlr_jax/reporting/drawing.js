// What all charts have in common: colours, axes, numbers as text.

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const colour = (name) =>
  getComputedStyle(document.documentElement)
    .getPropertyValue(`--${name}`)
    .trim();
// Okabe and Ito's colours, which the colour-blind tell apart.
const series = [
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#e69f00",
  "#56b4e9",
  "#8c8c8c",
];
const named = { ilg: "ILG", ots: "OTS", rts: "RTS" };
const network = (net) => plain(named[net] || net.toUpperCase());
const line = (net) => (named[net] ? colour(net) : colour("found"));

function axis(more) {
  return {
    gridcolor: colour("line"),
    linecolor: colour("line"),
    zeroline: false,
    automargin: true,
    ...more,
  };
}

function draw(id, traces, more) {
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") },
    hoverlabel: {
      bgcolor: colour("paper"),
      bordercolor: colour("line"),
      font: { color: colour("ink") },
    },
    margin: { l: 48, r: 12, t: 8, b: 40 },
    modebar: {
      bgcolor: "rgba(0,0,0,0)",
      color: colour("soft"),
      activecolor: colour("ink"),
    },
    legend: {
      orientation: "h",
      y: 1.02,
      yanchor: "bottom",
      x: 0,
      font: { size: 11 },
    },
    ...more,
  };
  return Plotly.react(id, traces, layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: id === "timeline",
    // By name: of the usual ones some would lead to a network.
    modeBarButtons: [
      ["zoom2d", "pan2d"],
      ["zoomIn2d", "zoomOut2d", "resetScale2d"],
      ["toImage"],
    ],
  });
}

const plain = (name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const seconds = (hundredths) => hundredths / 100;
function clock(time) {
  const whole = Math.floor(time / 60);
  return `${whole}:${(time - 60 * whole).toFixed(1).padStart(4, "0")}`;
}
const span = (start, end) => `${clock(start)} to ${clock(end)}`;
const short = (name) => (name.length > 16 ? `${name.slice(0, 15)}…` : name);
