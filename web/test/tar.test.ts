import { describe, expect, it } from 'vitest';
import { childrenOf, readTar, writeTar } from '../src/lib/tar';

const bytes = (text: string) => new TextEncoder().encode(text);

describe('tar', () => {
  it('reads what it writes', () => {
    const archive = writeTar('ä b.txt', bytes('hello'), 1_700_000_000);
    expect(archive.length % 512).toBe(0);
    const [entry, ...more] = readTar(archive);
    expect(more).toEqual([]);
    expect(entry).toMatchObject({ path: 'ä b.txt', directory: false, size: 5 });
    expect(new TextDecoder().decode(archive.subarray(entry!.start, entry!.start + entry!.size))).toBe('hello');
  });

  it('takes a long name from the header in front of it', () => {
    const name = `${'d'.repeat(150)}/file`;
    const long = writeTar('x', bytes(name), 0);
    long[156] = 'L'.charCodeAt(0);
    const file = writeTar('cut', bytes('1'), 0);
    const both = new Uint8Array(1024 + file.length);
    both.set(long.subarray(0, 1024));
    both.set(file, 1024);
    expect(readTar(both).map((entry) => entry.path)).toEqual([name]);
  });

  it('refuses what is cut off, what is no archive, and names that lead elsewhere', () => {
    expect(() => readTar(writeTar('a', bytes('x'.repeat(600)), 0).subarray(0, 1024))).toThrow('cut off');
    expect(() => readTar(bytes('~'.repeat(512)))).toThrow('no tar archive');
    for (const name of ['', '..', 'a/b', 'n'.repeat(101)]) expect(() => writeTar(name, bytes(''), 0)).toThrow();
  });

  it('lists one directory: directories first', () => {
    const entry = (path: string, directory = false) => ({ path, directory, size: 0, start: 0 });
    const all = [entry('data', true), entry('data/b'), entry('data/a'), entry('data/z', true), entry('data/z/deep'), entry('data2/other')];
    expect(childrenOf(all, 'data').map(({ name }) => name)).toEqual(['z', 'a', 'b']);
  });
});
