// Guides first: whoever searches wants an explanation, not every place that has the word.
var Scorer = {
  score: ([page, title, anchor, description, score]) => {
    const isReference = /(findings|cli|how-it-works|bench|CHANGELOG|CONTRIBUTING|what-|emulator-)[^/]*$/.test(page);
    const isObject = description && !anchor.startsWith("#") && page.endsWith("/api");
    return score - (isReference ? 12 : 0) - (isObject || page.endsWith("/api") ? 8 : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 10,
  term: 5,
  partialTerm: 2,
};
