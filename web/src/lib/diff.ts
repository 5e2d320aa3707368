// Line differences: Myers' greedy algorithm, folded into hunks; and a three-way merge of what two sides did to one text.

export interface DiffLine {
  kind: 'same' | 'added' | 'removed';
  text: string;
  before?: number;
  after?: number;
}

const splitLines = (text: string): string[] => {
  const lines = text.split('\n');
  if (lines[lines.length - 1] === '') lines.pop();
  return lines;
};

/** More edits than this are shown as one replacement: the walk's memory grows with their square. */
const MOST_EDITS = 2000;

const replaced = (a: string[], b: string[], offset: number): DiffLine[] => [
  ...a.map((text, index): DiffLine => ({ kind: 'removed', text, before: offset + index + 1 })),
  ...b.map((text, index): DiffLine => ({ kind: 'added', text, after: offset + index + 1 })),
];

/** The furthest-reaching paths of each number of edits, to walk back along; undefined when there are too many. */
function trace(before: string[], after: string[]): Map<number, number>[] | undefined {
  const furthest = new Map<number, number>([[1, 0]]);
  const steps: Map<number, number>[] = [];
  for (let edits = 0; edits <= before.length + after.length; edits += 1) {
    if (edits > MOST_EDITS) return undefined;
    steps.push(new Map(furthest));
    for (let diagonal = -edits; diagonal <= edits; diagonal += 2) {
      const down = diagonal === -edits || (diagonal !== edits && furthest.get(diagonal - 1)! < furthest.get(diagonal + 1)!);
      let x = down ? furthest.get(diagonal + 1)! : furthest.get(diagonal - 1)! + 1;
      let y = x - diagonal;
      while (x < before.length && y < after.length && before[x] === after[y]) {
        x += 1;
        y += 1;
      }
      furthest.set(diagonal, x);
      if (x >= before.length && y >= after.length) return steps;
    }
  }
  return steps;
}

/** All lines of both texts, each marked same, added or removed. */
export function diffLines(beforeText: string, afterText: string): DiffLine[] {
  const before = splitLines(beforeText);
  const after = splitLines(afterText);
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let tail = 0;
  while (tail < before.length - start && tail < after.length - start && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail += 1;
  const a = before.slice(start, before.length - tail);
  const b = after.slice(start, after.length - tail);
  const same = (text: string, x: number, y: number): DiffLine => ({ kind: 'same', text, before: x + 1, after: y + 1 });
  const head = before.slice(0, start).map((text, index) => same(text, index, index));
  const end = before.slice(before.length - tail).map((text, index) => same(text, before.length - tail + index, after.length - tail + index));
  const steps = trace(a, b);
  return [...head, ...(steps ? walkBack(a, b, steps, start) : replaced(a, b, start)), ...end];
}

function walkBack(a: string[], b: string[], steps: Map<number, number>[], offset: number): DiffLine[] {
  const lines: DiffLine[] = [];
  let x = a.length;
  let y = b.length;
  for (let edits = steps.length - 1; edits >= 0; edits -= 1) {
    const furthest = steps[edits]!;
    const diagonal = x - y;
    const down = diagonal === -edits || (diagonal !== edits && furthest.get(diagonal - 1)! < furthest.get(diagonal + 1)!);
    const fromDiagonal = down ? diagonal + 1 : diagonal - 1;
    const fromX = furthest.get(fromDiagonal)!;
    while (x > fromX && y > fromX - fromDiagonal && x > 0 && y > 0) {
      x -= 1;
      y -= 1;
      lines.push({ kind: 'same', text: a[x]!, before: offset + x + 1, after: offset + y + 1 });
    }
    if (edits === 0) break;
    if (down) lines.push({ kind: 'added', text: b[--y]!, after: offset + y + 1 });
    else lines.push({ kind: 'removed', text: a[--x]!, before: offset + x + 1 });
  }
  return lines.reverse();
}

/** Runs of changes with some lines around them; `skipped` counts the equal lines left out before a hunk. */
export function hunks(lines: DiffLine[], context = 3): { skipped: number; lines: DiffLine[] }[] {
  const near = new Set<number>();
  lines.forEach((line, index) => {
    if (line.kind === 'same') return;
    for (let at = index - context; at <= index + context; at += 1) near.add(at);
  });
  const result: { skipped: number; lines: DiffLine[] }[] = [];
  let skipped = 0;
  let current: DiffLine[] | undefined;
  lines.forEach((line, index) => {
    if (!near.has(index)) {
      skipped += 1;
      current = undefined;
      return;
    }
    if (!current) {
      current = [];
      result.push({ skipped, lines: current });
      skipped = 0;
    }
    current.push(line);
  });
  return result;
}

/** What a side did to the base, as replacements of base lines [from, to). */
function edits(base: string, side: string): { from: number; to: number; lines: string[] }[] {
  const result: { from: number; to: number; lines: string[] }[] = [];
  let at = 0;
  let open: { from: number; to: number; lines: string[] } | undefined;
  for (const line of diffLines(base, side)) {
    if (line.kind === 'same') {
      open = undefined;
      at += 1;
      continue;
    }
    if (!open) {
      open = { from: at, to: at, lines: [] };
      result.push(open);
    }
    if (line.kind === 'removed') open.to = at += 1;
    else open.lines.push(line.text);
  }
  return result;
}

export interface Merge {
  text: string;
  conflicts: number;
}

/** Merges two changed texts of one base; where both changed the same lines, both stand between markers. */
export function merge3(base: string, mine: string, theirs: string): Merge {
  const lines = splitLines(base);
  const all = [...edits(base, mine).map((edit) => ({ ...edit, mine: true })), ...edits(base, theirs).map((edit) => ({ ...edit, mine: false }))];
  all.sort((left, right) => left.from - right.from || left.to - right.to);
  const out: string[] = [];
  let at = 0;
  let conflicts = 0;
  for (let index = 0; index < all.length; ) {
    const group = [all[index++]!];
    let end = group[0]!.to;
    while (index < all.length && (all[index]!.from < end || all[index]!.from === group[0]!.from)) {
      end = Math.max(end, all[index]!.to);
      group.push(all[index++]!);
    }
    const from = group[0]!.from;
    out.push(...lines.slice(at, from));
    const side = (isMine: boolean) => apply(lines, from, end, group.filter((edit) => edit.mine === isMine));
    const [ours, other] = [side(true), side(false)];
    const touched = (isMine: boolean) => group.some((edit) => edit.mine === isMine);
    if (!touched(false) || ours.join('\n') === other.join('\n')) out.push(...ours);
    else if (!touched(true)) out.push(...other);
    else {
      conflicts += 1;
      out.push('<<<<<<< yours', ...ours, '=======', ...other, '>>>>>>> on the server');
    }
    at = end;
  }
  out.push(...lines.slice(at));
  return { text: `${out.join('\n')}\n`, conflicts };
}

function apply(base: string[], from: number, to: number, changes: { from: number; to: number; lines: string[] }[]): string[] {
  const out: string[] = [];
  let at = from;
  for (const change of changes) {
    out.push(...base.slice(at, change.from), ...change.lines);
    at = change.to;
  }
  return [...out, ...base.slice(at, to)];
}
