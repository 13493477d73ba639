// Losses, pseudo labels, errors; tables that sort.

function losses() {
  data.losses.forEach((curve, n) => {
    const names = Object.keys(curve.terms);
    // A term has its colour in both streams, and flow is dotted.
    const kinds = [...new Set(names.map((name) => name.split("/").pop()))];
    const traces = names.map((name) => {
      const kind = kinds.indexOf(name.split("/").pop());
      const ink =
        name === "loss" ? colour("ink") : series[(kind - 1) % series.length];
      return {
        type: "scatter",
        mode: curve.step.length > 1 ? "lines" : "markers",
        name: plain(name),
        x: curve.step,
        y: curve.terms[name],
        visible: name === "grad_norm" ? "legendonly" : true,
        line: {
          width: name === "loss" ? 2.4 : 1.5,
          color: ink,
          dash: name.startsWith("flow/") ? "dot" : "solid",
        },
        marker: { color: ink },
        hovertemplate: `step %{x}<br>${plain(name)} %{y:.4g}<extra></extra>`,
      };
    });
    draw(`loss-${n}`, traces, {
      xaxis: axis({
        title: { text: "step" },
        range: [0, curve.steps || Math.max(...curve.step)],
      }),
      yaxis: axis({ type: "log", tickformat: "~g", dtick: 1 }),
      showlegend: true,
      margin: { l: 48, r: 12, t: 30, b: 40 },
    });
  });
}

function labels() {
  if (!at("labels-chart")) return;
  const kinds = [
    ["precision", "precision, all frames", "ots", "solid"],
    ["recall", "recall, all frames", "ots", "dot"],
    ["action_precision", "precision, action frames", "rts", "solid"],
    ["action_recall", "recall, action frames", "rts", "dot"],
  ];
  const traces = kinds.map(([key, name, ink, dash]) => ({
    type: "scatter",
    mode: "lines+markers",
    name,
    x: data.quality.map((line) => line.phase),
    y: data.quality.map((line) => (line[key] == null ? null : 100 * line[key])),
    line: { color: colour(ink), dash, width: 2 },
    marker: { size: 7, symbol: dash === "dot" ? "square" : "circle" },
    hovertemplate: `%{x}<br>${name} %{y:.1f} %<extra></extra>`,
  }));
  draw("labels-chart", traces, {
    xaxis: axis({ type: "category" }),
    yaxis: axis({ range: [0, 103], title: { text: "%" } }),
    margin: { l: 48, r: 12, t: 34, b: 60 },
  });
}

function errors() {
  if (!at("errors-chart")) return;
  const kinds = Object.keys(data.profiles[0].profile[0]);
  const inks = [
    "#009e73",
    "#56b4e9",
    "#cc79a7",
    "#e69f00",
    "#0072b2",
    "#8c8c8c",
  ];
  const traces = [];
  data.profiles.forEach(({ name, profile }, p) => {
    kinds.forEach((kind, k) =>
      traces.push({
        type: "bar",
        name: kind,
        legendgroup: kind,
        showlegend: p === 0,
        xaxis: p ? "x2" : "x",
        x: profile.map((_, n) => `${n + 1}G`),
        y: profile.map((row) => 100 * row[kind]),
        marker: { color: inks[k] },
        hovertemplate: `${name}, block %{x}<br>${kind} %{y:.1f} %<extra></extra>`,
      }),
    );
  });
  const two = data.profiles.length > 1;
  const title = (n) => ({
    text: `${data.profiles[n].name}: detections by rank`,
  });
  draw("errors-chart", traces, {
    barmode: "stack",
    bargap: 0.15,
    xaxis: axis({ domain: two ? [0, 0.48] : [0, 1], title: title(0) }),
    ...(two
      ? { xaxis2: axis({ domain: [0.52, 1], title: title(1), anchor: "y" }) }
      : {}),
    yaxis: axis({ range: [0, 100], title: { text: "%" } }),
    margin: { l: 48, r: 12, t: 50, b: 50 },
  });
}

// Tables that sort.

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, n) =>
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      const value = (row) => row.cells[n].textContent;
      const compare = n
        ? (a, b) =>
            Number(value(a).replace("−", "-")) -
            Number(value(b).replace("−", "-"))
        : (a, b) => value(a).localeCompare(value(b));
      rows.sort((a, b) => (up ? 1 : -1) * compare(a, b));
      table.tBodies[0].append(...rows);
    }),
  );
}
