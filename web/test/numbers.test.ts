// Quantities, durations, row windows, sorting, ranking.
import { describe, expect, it } from 'vitest';
import { compareKeys } from '../src/lib/compare';
import { score } from '../src/lib/fuzzy';
import { formatBytes, formatCpu, parseQuantity } from '../src/lib/quantity';
import { formatDuration } from '../src/lib/time';
import { rowWindow, scrollToRow } from '../src/lib/windowing';

describe('quantities', () => {
  it.each([['100m', 0.1], ['1.5', 1.5], ['64Mi', 64 * 1024 * 1024], ['2e3', 2000], ['52653n', 52653e-9], ['1k', 1000], ['.5', 0.5], ['0Ki', 0], ['-1', -1]])('%s', (text, value) => expect(parseQuantity(text)).toBeCloseTo(value, 12));
  it.each(['', 'Mi', '1 Mi', '1mb', 'abc'])('“%s” is none', (text) => expect(parseQuantity(text)).toBeNaN());
  it.each([[1024, '1 KiB'], [1536, '1.5 KiB'], [10, '10 B'], [800 * 1024 ** 2, '800 MiB'], [0, '0 B'], [NaN, '–'], [100 * 1024, '100 KiB']])('%d bytes', (value, text) => expect(formatBytes(value)).toBe(text));
  it.each([[0.25, '250m'], [1.5, '1.5'], [2, '2'], [0, '0'], [0.00004, '40µ'], [0.1, '100m'], [20, '20']])('%d cores', (value, text) => expect(formatCpu(value)).toBe(text));
});

describe('durations', () => {
  it.each([[5_000, '5s'], [119_000, '119s'], [200_000, '3m20s'], [900_000, '15m'], [4 * 3_600_000 + 60_000, '4h1m'], [30 * 3_600_000, '30h'], [12 * 86_400_000, '12d'], [-5, '0s']])('%d', (value, text) => expect(formatDuration(value)).toBe(text));
});

describe('row windows', () => {
  it('draws only what is in view', () => {
    const window = rowWindow(30_000, 36, 36 * 15_000, 720, 5);
    expect(window).toMatchObject({ first: 14_995, last: 15_025, height: 30_000 * 36 });
    expect(window.before).toBe(14_995 * 36);
  });
  it('scales where the browser could not scroll that far, and still reaches the end', () => {
    const tall = rowWindow(1_000_000, 36, 8_000_000 - 720, 720);
    expect(tall.height).toBe(8_000_000);
    expect(tall.last).toBe(1_000_000);
  });
  it('is empty for nothing and whole for few', () => {
    expect(rowWindow(0, 36, 0, 700)).toMatchObject({ first: 0, last: 0, height: 0 });
    expect(rowWindow(3, 36, 0, 700)).toMatchObject({ first: 0, last: 3 });
  });
  it('scrolls as little as needed', () => {
    expect(scrollToRow(0, 36, 100, 400)).toBe(0);
    expect(scrollToRow(5, 36, 100, 400)).toBeUndefined();
    expect(scrollToRow(20, 36, 100, 400)).toBe(356);
  });
});

describe('sorting and ranking', () => {
  it('takes digits as numbers and puts nothing last', () => {
    expect(['pod-10', 'pod-2', undefined, 'Pod-1'].sort(compareKeys)).toEqual(['Pod-1', 'pod-2', 'pod-10', undefined]);
    expect(compareKeys(undefined, 1)).toBe(1);
  });
  it('needs every word and likes beginnings', () => {
    expect(score('hello-backend', 'hello back')).toBeGreaterThan(0);
    expect(score('hello-backend', 'hello front')).toBe(0);
    expect(score('web', 'web')).toBeGreaterThan(score('my-cobweb', 'web'));
  });
});
