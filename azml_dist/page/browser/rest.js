function showData() {
  if (!sheet.inputs.length && !sheet.outputs.length) return;
  section("data", "Inputs and outputs",
    sheet.inputs.length ? [el("h3", {}, "inputs"), pairs(sheet.inputs)] : null,
    sheet.outputs.map((one) => [el("h3", {}, "output ", el("b", {}, one.name)), el("p", { class: "mono" }, link(one.href, one.path)),
      one.files.length ? el("details", { open: one.files.length <= 12 }, el("summary", {}, one.told), el("table", {}, el("tbody", {}, one.files.map((file) => el("tr", {}, el("td", { class: "mono" }, link(file.href, file.name)), el("td", { class: "num" }, file.size)))))) : el("p", { class: "dim" }, one.told)]));
}

function showEnvironment() {
  if (!sheet.variables.length && !sheet.facts.length) return;
  const filter = el("input", { type: "search", placeholder: "filter", "aria-label": "filter", oninput: () => {
    const wanted = filter.value.toLowerCase();
    for (const row of body.children) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  } });
  const body = el("tbody", {}, sheet.variables.map(([name, value]) => el("tr", {}, el("td", { class: "mono" }, name), el("td", { class: "mono" }, value))));
  section("environment", "Environment", pairs(sheet.facts.map(([name, value]) => [name, value.startsWith("https://") ? link(value, value) : value])),
    sheet.variables.length ? el("details", { open: sheet.variables.length <= 12 }, el("summary", {}, plural(sheet.variables.length, "variable") + " of each process"), filter, el("div", { class: "board" }, el("table", {}, body))) : null);
}

function showNext() {
  if (!sheet.next.length) return;
  section("next", "What to type next", el("div", { class: "pairs" }, sheet.next.map(([what, command]) => [el("span", {}, what), el("span", {}, copyable(command))])));
}
