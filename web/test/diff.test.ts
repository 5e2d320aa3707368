// Line differences and three-way merges.
import { describe, expect, it } from 'vitest';
import { diffLines, hunks, merge3 } from '../src/lib/diff';

const rebuild = (before: string, after: string) => {
  const lines = diffLines(before, after);
  const side = (drop: string) => lines.filter((line) => line.kind !== drop).map((line) => `${line.text}\n`).join('');
  return [side('added'), side('removed')];
};

/** A small generator with a seed: the same cases each run. */
function random(seed: number) {
  let state = seed;
  return (below: number) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * below);
  };
}

describe('diffLines', () => {
  it('both sides can be read back from the difference', () => {
    const next = random(7);
    for (let round = 0; round < 300; round += 1) {
      const text = () => Array.from({ length: next(12) }, () => `${'abcd'[next(4)]}\n`).join('');
      const [before, after] = [text(), text()];
      expect(rebuild(before, after)).toEqual([before, after]);
    }
  });

  it('is small for a small change', () => {
    const lines = diffLines('a\nb\nc\n', 'a\nx\nc\n');
    expect(lines.map((line) => `${line.kind} ${line.text}`)).toEqual(['same a', 'removed b', 'added x', 'same c']);
  });

  it('shows texts with nothing in common as one replacement, in time', () => {
    const many = (prefix: string) => Array.from({ length: 5000 }, (_, index) => `${prefix}${index}`).join('\n');
    const lines = diffLines(many('a'), many('b'));
    expect(lines.filter((line) => line.kind === 'added')).toHaveLength(5000);
  });
});

describe('hunks', () => {
  it('leaves out what is far from a change and counts it', () => {
    const before = Array.from({ length: 20 }, (_, index) => `line ${index}`).join('\n');
    const parts = hunks(diffLines(before, before.replace('line 10', 'changed')), 2);
    expect(parts).toHaveLength(1);
    expect(parts[0]!.skipped).toBe(8);
    expect(parts[0]!.lines).toHaveLength(6);
  });
});

describe('merge3', () => {
  const base = 'a\nb\nc\nd\ne\n';
  it.each([
    ['changes apart fit together', 'A\nb\nc\nd\ne\n', 'a\nb\nc\nd\nE\n', 'A\nb\nc\nd\nE\n', 0],
    ['the same change on both sides is one', 'a\nX\nc\nd\ne\n', 'a\nX\nc\nd\ne\n', 'a\nX\nc\nd\ne\n', 0],
    ['only theirs', base, 'a\nb\nd\ne\n', 'a\nb\nd\ne\n', 0],
    ['the same line changed twice is a conflict', 'a\nX\nc\nd\ne\n', 'a\nY\nc\nd\ne\n', 'a\n<<<<<<< yours\nX\n=======\nY\n>>>>>>> on the server\nc\nd\ne\n', 1],
  ])('%s', (_name, mine, theirs, text, conflicts) => {
    expect(merge3(base, mine, theirs)).toEqual({ text, conflicts });
  });
});
