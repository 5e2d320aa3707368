// Label selectors.
import { describe, expect, it } from 'vitest';
import { fromObject, mapSelects, matchesAll, parseSelector, printSelector } from '../src/lib/selector';

const labels = { app: 'web', tier: 'front', 'example.org/x': '' };

describe('parseSelector', () => {
  it.each([
    ['app=web', true], ['app==web', true], ['app!=web', false], ['app', true], ['!app', false], ['!old', true], ['old!=x', true],
    ['app in (web, api)', true], ['app notin (web)', false], ['app=web,tier=front', true], ['app in (a,b),tier', false], ['example.org/x=', true], ['', true],
  ])('%s', (text, matches) => expect(matchesAll(labels, parseSelector(text))).toBe(matches));

  it('names what is wrong', () => expect(() => parseSelector('app=web,-x=1')).toThrow('“-x=1” is not a requirement'));
});

describe('object selectors', () => {
  it('an empty selector matches all, no selector is undefined', () => {
    expect(fromObject(undefined)).toBeUndefined();
    expect(matchesAll(labels, fromObject({})!)).toBe(true);
  });
  it('an empty map of a Service selects nothing', () => {
    expect(mapSelects({}, labels)).toBe(false);
    expect(mapSelects({ app: 'web' }, labels)).toBe(true);
  });
  it('prints as people type it', () => {
    expect(printSelector({ matchLabels: { a: 'b' }, matchExpressions: [{ key: 'c', operator: 'In', values: ['d', 'e'] }, { key: 'f', operator: 'DoesNotExist' }] })).toBe('a=b,c in (d,e),!f');
  });
});
