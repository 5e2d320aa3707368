// Keeps rows sorted while they come, go and are replaced.
//
// A list of 30,000 objects changes several times a second, each time by a few hundred: sorting all of it anew takes longer
// than a frame. So what has stayed (the same object: rows are replaced, never changed in place) keeps its order, and only
// what is new is sorted and merged in. Rows of equal keys are in the order of their ids: they do not jump when they change.
import { compareKeys, type SortKey } from './compare';

export interface Order<T> {
  /** What is compared. Another function is another order. */
  value(row: T): SortKey;
  descending: boolean;
}

interface Keyed<T> {
  row: T;
  key: SortKey;
  id: string;
}

export class Sorter<T> {
  #order: Order<T> | undefined;
  #sorted: readonly T[] = [];
  #known: ReadonlySet<T> = new Set();

  constructor(private readonly idOf: (row: T) => string) {}

  sort(rows: readonly T[], order: Order<T>): readonly T[] {
    const there = new Set(rows);
    const same = order.value === this.#order?.value && order.descending === this.#order.descending;
    const stayed = same ? this.#sorted.filter((row) => there.has(row)) : [];
    const fresh = same ? rows.filter((row) => !this.#known.has(row)) : rows;
    this.#sorted = this.#merge(stayed, fresh, order);
    this.#known = there;
    this.#order = order;
    return this.#sorted;
  }

  #merge(stayed: readonly T[], fresh: readonly T[], order: Order<T>): readonly T[] {
    // Keys once per row: comparisons would compute them log n times.
    const keyed = (row: T): Keyed<T> => ({ row, key: order.value(row), id: this.idOf(row) });
    const compare = (left: Keyed<T>, right: Keyed<T>) => {
      const byKey = order.descending ? compareKeys(right.key, left.key) : compareKeys(left.key, right.key);
      return byKey || (left.id < right.id ? -1 : Number(left.id > right.id));
    };
    const added = fresh.map(keyed).sort(compare);
    const merged: T[] = [];
    let from = 0;
    for (const entry of added) {
      const to = firstAfter(stayed, from, (row) => compare(keyed(row), entry) > 0);
      for (; from < to; from += 1) merged.push(stayed[from]!);
      merged.push(entry.row);
    }
    for (; from < stayed.length; from += 1) merged.push(stayed[from]!);
    return merged;
  }
}

/** The first place from `low` on whose row comes after; such rows are at the end. */
function firstAfter<T>(rows: readonly T[], low: number, isAfter: (row: T) => boolean): number {
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isAfter(rows[middle]!)) high = middle;
    else low = middle + 1;
  }
  return low;
}
