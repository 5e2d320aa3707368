// Log parsing and the bounded buffer.
import { describe, expect, it } from 'vitest';
import { LineSplitter, LogBuffer, matcher, parseLine } from '../src/lib/logs';

describe('lines', () => {
  it('waits for the end of a line', () => {
    const splitter = new LineSplitter();
    expect(splitter.push('one\ntw')).toEqual(['one']);
    expect(splitter.push('o\n\nthree')).toEqual(['two', '']);
    expect(splitter.flush()).toEqual(['three']);
    expect(splitter.flush()).toEqual([]);
  });
  it('takes the timestamp off and strips colours', () => {
    expect(parseLine('2026-01-02T03:04:05.123456789Z \u001b[31mred\u001b[0m text\r')).toEqual({ time: '2026-01-02T03:04:05.123456789Z', text: 'red text' });
    expect(parseLine('<b>no markup</b>')).toEqual({ time: undefined, text: '<b>no markup</b>' });
  });
});

describe('LogBuffer', () => {
  it('merges sources by time and keeps lines without one behind theirs', () => {
    const buffer = new LogBuffer();
    buffer.append('a', ['2026-01-01T00:00:03Z three', 'more']);
    buffer.append('b', ['2026-01-01T00:00:01Z one']);
    expect(buffer.lines.map((line) => line.text)).toEqual(['one', 'three', 'more']);
  });
  it('stays bounded in a flood', () => {
    const buffer = new LogBuffer(1000);
    for (let round = 0; round < 50; round += 1) buffer.append('a', Array.from({ length: 500 }, (_, index) => `${round} ${index}`));
    expect(buffer.lines.length).toBeLessThanOrEqual(1000);
    expect(buffer.lines.at(-1)!.text).toBe('49 499');
    expect(buffer.dropped + buffer.lines.length).toBe(25_000);
  });
  it('takes more lines at once than a call has arguments', () => {
    const buffer = new LogBuffer(1000);
    buffer.append('a', Array.from({ length: 300_000 }, () => 'x'));
    expect(buffer.lines.length).toBeGreaterThan(0);
  });
});

describe('matcher', () => {
  it.each([['ERROR', 'an error', true], ['/e.r/', 'an eXr', true], ['/E.r/', 'an exr', false], ['/E.r/i', 'an exr', true], ['/(/', 'anything', false]])('%s in %s', (query, text, found) => expect(matcher(query)(text)).toBe(found));
});
