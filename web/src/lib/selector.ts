// Label selectors: the textual form that people type, and the object form of specs.

export type Requirement = { key: string; operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist'; values: string[] };
export interface LabelSelector {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

const KEY = /^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;

/** Splits at commas that are not within parentheses. */
function terms(text: string): string[] {
  return text.split(/,(?![^(]*\))/).map((term) => term.trim()).filter(Boolean);
}

function parseTerm(term: string): Requirement {
  const set = /^(\S+)\s+(in|notin)\s*\(([^)]*)\)$/.exec(term);
  if (set) {
    const values = set[3]!.split(',').map((value) => value.trim());
    return { key: set[1]!, operator: set[2] === 'in' ? 'In' : 'NotIn', values };
  }
  const equality = /^([^=!\s]+)\s*(==|=|!=)\s*(\S*)$/.exec(term);
  if (equality) return { key: equality[1]!, operator: equality[2] === '!=' ? 'NotIn' : 'In', values: [equality[3]!] };
  if (term.startsWith('!')) return { key: term.slice(1).trim(), operator: 'DoesNotExist', values: [] };
  return { key: term, operator: 'Exists', values: [] };
}

/** Parses `app=web,tier in (a,b),!old`; throws an Error that names what is wrong. */
export function parseSelector(text: string): Requirement[] {
  return terms(text).map((term) => {
    const requirement = parseTerm(term);
    if (!KEY.test(requirement.key)) throw new Error(`“${term}” is not a requirement: write key, !key, key=value, key!=value or key in (a,b)`);
    return requirement;
  });
}

export function fromObject(selector: LabelSelector | undefined): Requirement[] | undefined {
  if (!selector) return undefined;
  const equal = Object.entries(selector.matchLabels ?? {}).map(([key, value]): Requirement => ({ key, operator: 'In', values: [value] }));
  const expressions = (selector.matchExpressions ?? []).map((entry): Requirement => ({ key: entry.key, operator: entry.operator as Requirement['operator'], values: entry.values ?? [] }));
  return [...equal, ...expressions];
}

function satisfies(labels: Record<string, string>, { key, operator, values }: Requirement): boolean {
  const present = Object.hasOwn(labels, key);
  if (operator === 'Exists') return present;
  if (operator === 'DoesNotExist') return !present;
  const listed = present && values.includes(labels[key]!);
  return operator === 'In' ? listed : !listed;
}

export const matchesAll = (labels: Record<string, string> | undefined, requirements: Requirement[]): boolean =>
  requirements.every((requirement) => satisfies(labels ?? {}, requirement));

/** The query for objects whose fields have these values. What selectors are made of is escaped: names of roles may have it. */
export function withFields(fields: Record<string, string>): string {
  const terms = Object.entries(fields).map(([field, value]) => `${field}=${value.replace(/[\\,=]/g, '\\$&')}`);
  return `fieldSelector=${encodeURIComponent(terms.join(','))}`;
}

/** Whether a Service-like map selects the labels; an empty map selects nothing. */
export function mapSelects(map: Record<string, string> | undefined, labels: Record<string, string> | undefined): boolean {
  const entries = Object.entries(map ?? {});
  return entries.length > 0 && entries.every(([key, value]) => labels?.[key] === value);
}

export const printMap = (map: Record<string, string> | undefined): string =>
  Object.entries(map ?? {}).map(([key, value]) => `${key}=${value}`).join(',');

export function printSelector(selector: LabelSelector | undefined): string {
  const expressions = (selector?.matchExpressions ?? []).map(({ key, operator, values }) =>
    operator === 'Exists' ? key : operator === 'DoesNotExist' ? `!${key}` : `${key} ${operator.toLowerCase()} (${(values ?? []).join(',')})`);
  return [printMap(selector?.matchLabels), ...expressions].filter(Boolean).join(',');
}
