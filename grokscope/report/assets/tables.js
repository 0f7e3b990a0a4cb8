// The numbers behind each chart as a table, made when it is opened.

const MOST_TABLE_ROWS = 200;

function addTable(panel, chartOf) {
  const details = html("details", { class: "table" }, html("summary", {}, "Table of these values"));
  details.addEventListener("toggle", () => {
    if (!details.open || !chartOf()) return;
    details.replaceChildren(details.firstElementChild, html("div", { class: "scroll", tabindex: "0" }, tableOf(chartOf().spec)));
  });
  panel.append(details);
  return () => { details.open = false; };
}

function tableOf(spec) {
  const table = html("table");
  const longest = spec.lines.reduce((one, other) => (other.steps.length > one.steps.length ? other : one)).steps;
  const every = Math.ceil(longest.length / MOST_TABLE_ROWS);
  const caption = every > 1 ? `${spec.label}, at every ${every}th of ${inSteps(longest.length)} steps, and the last` : spec.label;
  table.append(html("caption", {}, caption));
  const columns = spec.lines.flatMap((line) => [
    { line, name: line.label, values: line.values },
    ...(line.spread ? [{ line, name: `${line.label}, ±`, values: line.spread }] : []),
    ...(line.shuffled ? [{ line, name: `${line.label}, shuffled`, values: line.shuffled }] : []),
  ]);
  const head = html("tr", {}, ...["step", ...columns.map((column) => column.name)].map((name) => html("th", { scope: "col" }, name)));
  const body = html("tbody");
  for (let j = 0; j < longest.length; j++) {
    if (j % every && j !== longest.length - 1) continue;
    const cells = columns.map(({ line, values }) => {
      const k = nearest(line.steps, longest[j]);
      return html("td", {}, line.steps[k] === longest[j] ? written(values[k], 6) : "");
    });
    body.append(html("tr", {}, html("th", { scope: "row" }, inSteps(longest[j])), ...cells));
  }
  table.append(html("thead", {}, head), body);
  return table;
}
