// Comparing cells: numbers as numbers, text with its digits as numbers (`pod-2` before `pod-10`), nothing last.

const collator = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });

export type SortKey = string | number | undefined;

export function compareKeys(left: SortKey, right: SortKey): number {
  if (left === right) return 0;
  if (left === undefined || left === '') return 1;
  if (right === undefined || right === '') return -1;
  if (typeof left === 'number' && typeof right === 'number') return left - right;
  return collator.compare(String(left), String(right));
}
