// YAML as people edit it: without what the server manages, in the order of kubectl, with errors that name the line.
import { Document, isMap, parseAllDocuments } from 'yaml';
import type { KubeObject } from '../api/objects';

const ORDER = ['apiVersion', 'kind', 'metadata', 'type', 'data', 'stringData', 'spec', 'status'];
const rank = (key: string) => (ORDER.indexOf(key) + 1 || ORDER.length + 1);

/** Keys are sorted, as kubectl prints them: the server keeps the order of whoever wrote, which would show as a difference. */
export function toYaml(object: unknown): string {
  const document = new Document(object, { aliasDuplicateObjects: false, sortMapEntries: true });
  if (isMap(document.contents)) {
    document.contents.items.sort((left, right) => rank(String(left.key)) - rank(String(right.key)));
  }
  return document.toString({ lineWidth: 0 });
}

const SERVER_WRITES = ['managedFields', 'resourceVersion', 'generation', 'uid', 'creationTimestamp', 'selfLink', 'deletionTimestamp', 'deletionGracePeriodSeconds'];

/** The part of an object that a person may change: nothing that the server writes. */
export function editable(object: KubeObject, keepStatus = false): KubeObject {
  const { status, ...rest } = object;
  const metadata = Object.fromEntries(Object.entries(rest.metadata).filter(([key]) => !SERVER_WRITES.includes(key)));
  return { ...rest, metadata: metadata as unknown as KubeObject['metadata'], ...(keepStatus && status ? { status } : {}) };
}

export interface Parsed {
  objects: KubeObject[];
  errors: { message: string; line: number }[];
}

/** Parses one or more documents; a List is taken apart. YAML 1.1 booleans stay text as they do in kubectl's strict mode. */
export function parseYaml(text: string): Parsed {
  const errors: Parsed['errors'] = [];
  const objects: KubeObject[] = [];
  for (const document of parseAllDocuments(text)) {
    if (!('errors' in document)) continue;
    for (const error of document.errors) errors.push({ message: error.message.split('\n')[0]!, line: error.linePos?.[0].line ?? 1 });
    if (document.errors.length) continue;
    const line = text.slice(0, document.contents?.range?.[0] ?? 0).split('\n').length;
    try {
      const value: unknown = document.toJS({ maxAliasCount: 100 });
      if (value !== null && value !== undefined) collect(value, line, objects, errors);
    } catch (error) {
      // Aliases that would grow without bound.
      errors.push({ message: (error as Error).message, line });
    }
  }
  return { objects, errors };
}

function collect(value: unknown, line: number, objects: KubeObject[], errors: Parsed['errors']) {
  const object = value as Partial<KubeObject> & { items?: unknown[] };
  if (typeof value !== 'object' || Array.isArray(value)) errors.push({ message: 'not an object', line });
  else if (object.kind === 'List' && Array.isArray(object.items)) object.items.forEach((item) => collect(item, line, objects, errors));
  else if (!object.apiVersion || !object.kind) errors.push({ message: 'apiVersion and kind are required', line });
  else if (!object.metadata?.name && !(object.metadata as { generateName?: string } | undefined)?.generateName) errors.push({ message: `${object.kind} has no metadata.name`, line });
  else objects.push(object as KubeObject);
}

/** The path of mapping keys at a line, by indentation: what schema help is looked up by. */
export function pathAtLine(lines: string[], index: number): string[] {
  const path: string[] = [];
  let limit = Infinity;
  for (let at = index; at >= 0; at -= 1) {
    const match = /^(\s*(?:- +)*)([A-Za-z_$][\w.$/-]*)\s*:/.exec(lines[at] ?? '');
    if (!match) continue;
    const indent = match[1]!.length;
    if (indent >= limit) continue;
    path.unshift(match[2]!);
    // A key after "- " belongs to the list whose key is at or left of the dash.
    const dash = match[1]!.search(/-/);
    limit = dash >= 0 ? dash + 1 : indent;
    if (indent === 0) break;
  }
  return path;
}
