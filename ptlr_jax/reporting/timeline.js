// The timeline of the video that is shown.

/* Bars of a lane; those that overlap lie in rows of their own. */
function lane(rows) {
  const ends = [];
  const placed = rows
    .slice()
    .sort((a, b) => a.start - b.start)
    .map((row) => {
      let n = ends.findIndex((end) => end <= row.start);
      if (n < 0) n = ends.push(0) - 1;
      ends[n] = row.end;
      return { ...row, n };
    });
  return { placed, depth: Math.max(ends.length, 1) };
}

/* Lanes of a class, [name, colour, bars], from the top. */
function lanesOf(video, c) {
  const lanes = [];
  if (hasTruth(video)) lanes.push(["ground truth", "true", truthOf(video, c)]);
  Object.entries(video.labels || {}).forEach(([phase, runs]) => {
    lanes.push([phase, "rts", labelsOf(video, c, runs)]);
  });
  lanes.push([data.names.run, "found", proposalsOf(video.found, c)]);
  if (data.names.other && video.split === "test") {
    lanes.push([data.names.other, "other", proposalsOf(video.other, c)]);
  }
  return lanes;
}

const hasTruth = (video) => video.truth != null;

function truthOf(video, c) {
  const rows = video.truth.filter((row) => row[0] === c);
  return rows.map(([, start, end]) => ({
    start: seconds(start),
    end: seconds(end),
    text: "",
    depth: 1,
  }));
}

/* The selected segments of a training video after a phase. */
function labelsOf(video, c, runs) {
  const time = (segment) => video.start + segment * video.step;
  return Object.entries(runs).flatMap(([key, edges]) => {
    const label = Number(key);
    const starts = edges.filter((_, i) => i % 2 === 0);
    return starts.map((first, i) => ({
      start: time(first),
      end: time(edges[2 * i + 1]),
      text: label < 0 ? "background" : data.classes[label],
      ink: label === c ? "rts" : "background",
      depth: label < 0 ? 0.55 : 1,
    }));
  });
}

/* The stronger the higher the score, the best of the video as 1. */
function proposalsOf(rows, c) {
  const all = at("proposals").value === "all";
  const most = Math.max(1, ...rows.map((row) => row[3]));
  const kept = rows.filter((row) => row[0] === c && (all || row[4]));
  return kept.map(([, start, end, score]) => ({
    start: seconds(start),
    end: seconds(end),
    text: `score ${(score / 1000).toFixed(3)}`,
    depth: 0.25 + (0.75 * Math.max(0, score)) / most,
  }));
}

/* The curves of a class, a network each. */
function curvesOf(video, c) {
  const times = (y) =>
    y.map((_, t) => video.start + (t + 0.5) * video.cas_step);
  return Object.entries(video.cas || {})
    .filter(([, curves]) => curves[c])
    .map(([net, curves]) => ({
      type: "scatter",
      mode: "lines",
      name: `${network(net)} CAS`,
      x: times(curves[c]),
      y: curves[c].map((value) => value / 1000),
      line: { color: line(net), width: net === "ilg" ? 1.3 : 1.8 },
      text: times(curves[c]).map(clock),
      hovertemplate: `${network(net)} %{y:.3f}<br>%{text}<extra></extra>`,
    }));
}

/* A lane of bars whose upper edge lies at -top, and how high it is. */
function bars([name, ink, rows], top) {
  const { placed, depth } = lane(rows);
  const size = depth > 1 ? Math.max(0.32, 1 / depth) : 0.8;
  const said = (row) => [span(row.start, row.end), plain(row.text)];
  const trace = {
    type: "bar",
    orientation: "h",
    name,
    yaxis: "y2",
    showlegend: false,
    base: placed.map((row) => row.start),
    x: placed.map((row) => row.end - row.start),
    y: placed.map((row) => -(top + (row.n + 0.5) * size)),
    width: placed.map(() => 0.86 * size),
    marker: {
      color: placed.map((row) => colour(row.ink || ink)),
      opacity: placed.map((row) => row.depth),
      line: { width: 0 },
    },
    text: placed.map((row) => said(row).filter(Boolean).join("<br>")),
    textposition: "none",
    hovertemplate: `${plain(name)}<br>%{text}<extra></extra>`,
  };
  return { trace, high: depth * size };
}

function timeline() {
  const video = shown;
  const c = Number(at("video-class").value);
  const chosen = at("video-class").selectedIndex >= 0;
  const traces = chosen ? curvesOf(video, c) : [];
  const curves = traces.length > 0;
  const [ticks, names] = [[], []];
  let top = 0;
  (chosen ? lanesOf(video, c) : []).forEach((each) => {
    const { trace, high } = bars(each, top);
    traces.push(trace);
    ticks.push(-(top + high / 2));
    names.push(plain(short(each[0])));
    top += high + 0.35;
  });
  const lanes = 22 + 26 * Math.max(top, 1); // pixels
  const height = (curves ? 250 : 30) + lanes + 62;
  const share = curves ? Math.min(0.8, lanes / (height - 90)) : 1;
  at("timeline").style.minHeight = `${height}px`;
  draw("timeline", traces, {
    height,
    barmode: "overlay",
    hovermode: "closest",
    dragmode: "zoom",
    uirevision: `${video.split} ${video.id}`, // it stays zoomed until another
    xaxis: axis({
      range: [0, video.duration],
      minallowed: 0,
      maxallowed: video.duration,
      title: { text: "time (s)" },
      anchor: "y2",
      showspikes: true,
      spikemode: "across",
      spikethickness: 1,
      spikecolor: colour("soft"),
      spikedash: "dot",
    }),
    yaxis: axis({
      domain: [Math.min(share + 0.03, 0.98), 1],
      visible: curves,
      title: { text: "CAS" },
      fixedrange: true,
    }),
    yaxis2: axis({
      domain: [0, curves ? share - 0.02 : 1],
      range: [-top, 0.1],
      tickvals: ticks,
      ticktext: names,
      fixedrange: true,
      showgrid: false,
      ticks: "",
    }),
    margin: { l: 60, r: 12, t: 30, b: 44 },
  });
  describe(video, c, chosen);
}

/* What is drawn, in a sentence and as a table. */
function describe(video, c, chosen) {
  const count = (rows) => rows.filter((row) => row[0] === c).length;
  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const percent = (value) => `${(value / 10).toFixed(1)} %`;
  const all = at("proposals").value === "all";
  const parts = [];
  if (chosen && hasTruth(video)) {
    const number = plural(count(video.truth), "true instance");
    parts.push(`${number} of ${data.classes[c]}`);
  }
  if (chosen) {
    const drawn = video.found.filter((row) => all || row[4]);
    parts.push(plural(count(drawn), "proposal"));
  }
  const [ours, theirs] = video.ap;
  if (ours != null) parts.push(`AP of the video's classes ${percent(ours)}`);
  if (theirs != null) parts.push(`${data.names.other} ${percent(theirs)}`);
  const said = `${video.id}, ${clock(video.duration)} min: ${parts.join("; ")}.`;
  at("said").textContent = said;
  at("timeline").setAttribute("aria-label", `Timeline of ${said}`);
  const rows = (chosen ? lanesOf(video, c) : []).flatMap(([name, , lane]) =>
    lane
      .slice()
      .sort((a, b) => a.start - b.start)
      .map((bar) => [name, span(bar.start, bar.end), bar.text]),
  );
  at("listing").replaceChildren(tableOf(rows));
}

function tableOf(rows) {
  const table = document.createElement("table");
  const body = table.createTBody();
  rows.forEach((texts) => {
    const row = body.insertRow();
    texts.forEach((text, i) => {
      const cell = document.createElement(i ? "td" : "th");
      cell.textContent = text;
      row.append(cell);
    });
  });
  const box = document.createElement("div");
  box.className = "scrolls";
  box.append(table);
  return box;
}

/* Keys on the timeline: [part of the width to move, width after by before]. */
function move(event) {
  const steps = {
    ArrowLeft: [-0.15, 1],
    ArrowRight: [0.15, 1],
    "+": [0, 0.6],
    "=": [0, 0.6],
    "-": [0, 1 / 0.6],
    0: [0, Infinity],
    Home: [0, Infinity],
  };
  const step = steps[event.key];
  if (!step || !shown || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const [low, high] = at("timeline").layout.xaxis.range.map(Number);
  const width = Math.min((high - low) * step[1], shown.duration);
  let start = (low + high) / 2 - width / 2 + step[0] * (high - low);
  start = Math.max(0, Math.min(start, shown.duration - width));
  Plotly.relayout("timeline", { "xaxis.range": [start, start + width] });
}
