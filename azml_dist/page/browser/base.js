// Everything is made of elements and text: no text of a run is ever read as HTML.
const sheet = JSON.parse(document.getElementById("sheet").textContent);
const page = document.getElementById("page");
const SVG = "http://www.w3.org/2000/svg";

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

const el = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

function seconds(value) {
  if (value === null || value === undefined) return "";
  if (Math.abs(value) < 1) return value.toFixed(2) + " s";
  if (Math.abs(value) < 120) return value.toFixed(1) + " s";
  const whole = Math.round(value);
  if (whole < 7200) return Math.floor(whole / 60) + " min" + (whole % 60 ? " " + (whole % 60) + " s" : "");
  return Math.floor(whole / 3600) + " h" + (whole % 3600 >= 60 ? " " + Math.floor((whole % 3600) / 60) + " min" : "");
}

function number(value) {
  if (value === null || value === undefined) return "not a number";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return value.toLocaleString("en-US");
  return Number(value.toPrecision(5)).toString();
}

const plural = (count, word, many) => number(count) + " " + (count === 1 ? word : many || word + "s");

// Round numbers for an axis from `low` to `high`, about `count` of them.
function ticks(low, high, count) {
  const span = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => span / one <= count) || power * 10;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++) found.push(i * step + 0);
  return found;
}

// The same for times: of two minutes and more, whole minutes or hours where possible.
function moments(low, high, count) {
  const span = high - low;
  const step = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400].find((one) => span / one <= count);
  if (span < 120 || !step) return ticks(low, high, count);
  return Array.from({ length: Math.floor(high / step) - Math.ceil(low / step) + 1 }, (_, i) => (Math.ceil(low / step) + i) * step);
}

// Such a time, without a fraction.
const clock = (at) => at < 60 ? at + " s" : at < 120 ? "1 min" + (at > 60 ? " " + (at - 60) + " s" : "") : seconds(at);

// A link of the page may lead to a file, or to the studio; never to a script.
const isLink = (address) => /^(https:|file:)\/\//.test(address) || !/^[\w.+-]*:/.test(address);
const link = (address, text) => address && isLink(address) ? el("a", { href: address, rel: "noopener" }, text) : el("span", {}, text);

function section(id, title, ...children) {
  const found = el("section", { "aria-labelledby": id }, el("h2", { id }, title), ...children);
  page.append(found);
  contents.append(el("a", { href: "#" + id }, title));
  return found;
}

function pairs(rows) {
  const given = rows.filter((row) => row[1] !== null && row[1] !== "" && row[1] !== undefined);
  return given.length ? el("div", { class: "pairs" }, given.map(([name, value]) => [el("span", {}, name), el("span", {}, value)])) : null;
}

function copyable(command) {
  const button = el("button", { class: "copy", type: "button", onclick: () => copy(command, button) }, "copy");
  return el("div", { class: "quoted mono" }, button, command);
}

function copy(text, button) {
  const area = el("textarea", { readonly: true, "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  button.textContent = done ? "copied" : "select it to copy";
}

const tip = el("div", { class: "tip", hidden: true, role: "status" });
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const width = tip.offsetWidth, height = tip.offsetHeight;
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8)) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 8)) + "px";
}
const hideTip = () => { tip.hidden = true; };

// What is selected, for whoever shows it: the place of a log in `sheet.logs`.
const watchers = [];
const chosen = { log: null };
function choose(log) {
  chosen.log = log;
  for (const watcher of watchers) watcher(log);
}

const legend = (rows) => el("div", { class: "legend" }, rows.map(([kind, text]) => el("span", {}, el("i", { class: kind }), text)));
const TONE = { completed: "good", failed: "bad", stopped: "warn", running: "live", waiting: "none", never: "none", unknown: "warn" };
const tone = (status) => ({ Completed: "good", Failed: "bad", Canceled: "warn", NotStarted: "none", Unknown: "none", "not known": "none" })[status] || "live";
const contents = el("nav", { class: "bar", "aria-label": "sections" });
