import { expect, test } from 'vitest';
import { Sorter, type Order } from '../src/lib/sorter';

interface Row {
  id: string;
  restarts?: number;
}

const byRestarts = (row: Row) => row.restarts;
const up: Order<Row> = { value: byRestarts, descending: false };
const down: Order<Row> = { value: byRestarts, descending: true };
const ids = (rows: readonly Row[]) => rows.map((row) => row.id).join(' ');

test('rows are sorted, those of equal keys by their ids, those without a key last', () => {
  const rows: Row[] = [{ id: 'c', restarts: 1 }, { id: 'x' }, { id: 'b', restarts: 2 }, { id: 'a', restarts: 1 }];
  const sorter = new Sorter<Row>((row) => row.id);
  expect(ids(sorter.sort(rows, up))).toBe('a c b x');
  expect(ids(sorter.sort(rows, down))).toBe('x b a c');
});

test('a row that is replaced by one with the same key stays where it was', () => {
  const rows: Row[] = ['a', 'b', 'c'].map((id) => ({ id, restarts: 0 }));
  const sorter = new Sorter<Row>((row) => row.id);
  sorter.sort(rows, up);
  rows[0] = { id: 'a', restarts: 0 };
  const sorted = sorter.sort([...rows], up);
  expect(ids(sorted)).toBe('a b c');
  expect(sorted[0]).toBe(rows[0]);
});

test('after any changes the order is that of a sort from the beginning', () => {
  // A generator of its own, so that a failure can be had again.
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed % below;
  };
  const kept = new Sorter<Row>((row) => row.id);
  const rows = new Map<string, Row>();
  for (let step = 0; step < 300; step += 1) {
    for (let change = random(20); change > 0; change -= 1) {
      const id = `row-${random(60)}`;
      if (random(4) === 0) rows.delete(id);
      else rows.set(id, { id, restarts: random(5) || undefined });
    }
    const order = random(10) === 0 ? down : up;
    const now = [...rows.values()];
    expect(ids(kept.sort(now, order))).toBe(ids(new Sorter<Row>((row) => row.id).sort(now, order)));
  }
});

test('only rows that are new are compared by their keys', () => {
  let asked = 0;
  const order: Order<Row> = { value: (row) => { asked += 1; return row.restarts; }, descending: false };
  const rows: Row[] = Array.from({ length: 10_000 }, (_, index) => ({ id: `${index}`, restarts: index }));
  const sorter = new Sorter<Row>((row) => row.id);
  sorter.sort(rows, order);
  expect(asked).toBe(10_000);
  asked = 0;
  rows[5] = { id: '5', restarts: 9_000 };
  sorter.sort([...rows], order);
  expect(asked).toBeLessThan(20);
});
