// The beginning: everything is drawn, and again in other colours.

function all() {
  losses();
  labels();
  errors();
  if (shown) timeline();
}
document.querySelectorAll("table.sortable").forEach(sortable);
if (at("video")) viewer();
all();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
document.documentElement.dataset.ready = "true";
