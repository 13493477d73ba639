// Which video is shown: the list, its order, what it is of.

let shown = null;

/* The classes that a video has, as far as that is known. */
function trueOf(video) {
  const instances = (video.truth || []).map((row) => row[0]);
  return [...new Set([...instances, ...(video.listed || [])])];
}

/* All that can be shown of it, the true ones first. */
function classesOf(video) {
  const curves = Object.values(video.cas || {}).flatMap(Object.keys);
  const proposals = [...video.found, ...video.other].map((row) => row[0]);
  return [...new Set([...trueOf(video), ...proposals, ...curves.map(Number)])];
}

function gain(video) {
  const [ours, theirs] = video.ap;
  return ours == null || theirs == null ? null : ours - theirs;
}

/* The videos of the list in their order; what has no AP comes last. */
function listed() {
  const split = at("split").value;
  const wanted = at("class-filter").value;
  const kept = data.videos.filter(
    (video) =>
      video.split === split &&
      (wanted === "" || trueOf(video).includes(Number(wanted))),
  );
  const key = {
    worst: (video) => video.ap[0],
    best: (video) => negative(video.ap[0]),
    gained: (video) => negative(gain(video)),
    lost: gain,
    name: () => 0,
  }[at("order").value];
  const place = (video) => key(video) ?? Infinity;
  const named = (a, b) => (a.id < b.id ? -1 : 1);
  return kept.sort((a, b) => {
    const [x, y] = [place(a), place(b)];
    return x === y ? named(a, b) : x - y;
  });
}

const negative = (value) => (value == null ? null : -value);

/* What stands behind its name, in percent. */
function figure(video) {
  if (video.ap[0] == null) return "";
  const order = at("order").value;
  const text = (value) => (value / 10).toFixed(0);
  const by = order === "gained" || order === "lost" ? gain(video) : null;
  if (by == null) return ` · ${text(video.ap[0])}`;
  return ` · ${by > 0 ? "+" : ""}${text(by)}`;
}

function fill(select, entries) {
  const options = entries.map(([key, text]) => new Option(text, key));
  select.replaceChildren(...options);
  select.selectedIndex = options.length ? 0 : -1;
}

function list() {
  const entries = listed().map((video) => [
    video.id,
    `${video.id}${figure(video)}`,
  ]);
  fill(at("video"), entries);
  pick();
}

/* Shows the video that is chosen in the list. */
function pick() {
  const [id, split] = [at("video").value, at("split").value];
  shown = data.videos.find((v) => v.id === id && v.split === split) || null;
  if (!shown) {
    at("said").textContent = "No video is of that kind.";
    Plotly.purge("timeline");
    at("listing").replaceChildren();
    return;
  }
  const there = trueOf(shown);
  const mark = (c) => (there.includes(c) ? " (true)" : "");
  const entries = classesOf(shown).map((c) => [
    String(c),
    data.classes[c] + mark(c),
  ]);
  fill(at("video-class"), entries);
  const wanted = at("class-filter").value;
  if (entries.some(([c]) => c === wanted)) at("video-class").value = wanted;
  timeline();
}

function step(by) {
  const n = at("video").selectedIndex + by;
  if (n < 0 || n >= at("video").options.length) return;
  at("video").selectedIndex = n;
  pick();
}

function viewer() {
  const used = [...new Set(data.videos.flatMap(trueOf))];
  const entries = used.map((c) => [String(c), data.classes[c]]);
  entries.sort((a, b) => (a[1] < b[1] ? -1 : 1));
  fill(at("class-filter"), [["", "any"], ...entries]);
  const changed = (listener) => (id) =>
    at(id).addEventListener("change", () => listener());
  ["split", "order", "class-filter"].forEach(changed(list));
  ["video"].forEach(changed(pick));
  ["video-class", "proposals"].forEach(changed(timeline));
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("frame").addEventListener("keydown", move);
  list();
}
