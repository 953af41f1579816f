// Answers that are lines of JSON and come bit by bit.

// readLines calls each with each line of an answer, parsed, as it comes.
export async function readLines(answer, each) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const all = (rest + (done ? decoder.decode() : decoder.decode(value, { stream: true }))).split("\n");
    rest = done ? "" : all.pop();
    for (const text of all) if (text.trim()) each(JSON.parse(text));
    if (done) return;
  }
}
