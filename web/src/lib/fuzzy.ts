// Ranking for the global search: every typed word must occur; a match at the start of a part of the name is best.

export function score(text: string, query: string): number {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const lower = text.toLowerCase();
  let total = 0;
  for (const word of words) {
    const at = lower.indexOf(word);
    if (at < 0) return 0;
    const atStart = at === 0 || /[^a-z0-9]/.test(lower[at - 1]!);
    total += (atStart ? 20 : 5) + (word.length * 10) / (lower.length + 1) + (at === 0 ? 5 : 0);
  }
  return total;
}
