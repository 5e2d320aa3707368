// Field help from the server's OpenAPI v3 documents: what a path of keys means and which keys a mapping may have.
import { getJson } from './client';

interface Schema {
  type?: string;
  format?: string;
  description?: string;
  enum?: unknown[];
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  items?: Schema;
  allOf?: Schema[];
  $ref?: string;
  'x-kubernetes-group-version-kind'?: { group: string; version: string; kind: string }[];
}
interface Document {
  components?: { schemas?: Record<string, Schema> };
}
export interface FieldHelp {
  name: string;
  type: string;
  description: string;
}

/** By address, which the server changes with the content. */
const documents = new Map<string, Promise<Document>>();

async function document(groupVersion: string): Promise<Document> {
  const index = await getJson<{ paths: Record<string, { serverRelativeURL: string }> }>('/openapi/v3');
  const entry = index.paths[groupVersion];
  if (!entry) throw new Error(`the server has no schema of ${groupVersion}`);
  const { serverRelativeURL: address } = entry;
  let loading = documents.get(address);
  if (!loading) {
    loading = getJson<Document>(address);
    documents.set(address, loading);
    loading.catch(() => documents.delete(address));
  }
  return loading;
}

/** Help for one kind. */
export class KindSchema {
  constructor(
    private readonly schemas: Record<string, Schema>,
    private readonly root: Schema,
  ) {}

  #resolve(schema: Schema | undefined): Schema | undefined {
    const target = schema?.$ref ?? schema?.allOf?.[0]?.$ref;
    if (!target) return schema;
    const found = this.schemas[target.replace('#/components/schemas/', '')];
    return found && { ...found, description: schema?.description ?? found.description };
  }

  /** The mapping under a schema, seen through lists. */
  #mapping(schema: Schema | undefined): Schema | undefined {
    const resolved = this.#resolve(schema);
    return resolved?.items ? this.#mapping(resolved.items) : resolved;
  }

  #at(path: string[]): Schema | undefined {
    let schema: Schema | undefined = this.root;
    for (const key of path) {
      const mapping = this.#mapping(schema);
      const more = mapping?.additionalProperties;
      schema = mapping?.properties?.[key] ?? (typeof more === 'object' ? more : undefined);
    }
    return schema;
  }

  #help(name: string, schema: Schema): FieldHelp {
    const resolved = this.#resolve(schema) ?? schema;
    const inner = resolved.items ? this.#resolve(resolved.items) : undefined;
    const type = inner ? `list of ${inner.type ?? 'values'}` : (resolved.type ?? 'value');
    const values = resolved.enum ? ` One of: ${resolved.enum.join(', ')}.` : '';
    return { name, type, description: (resolved.description ?? '') + values };
  }

  describe(path: string[]): FieldHelp | undefined {
    const schema = this.#at(path);
    return schema && this.#help(path[path.length - 1] ?? '', schema);
  }

  complete(path: string[]): FieldHelp[] {
    const mapping = this.#mapping(this.#at(path));
    return Object.entries(mapping?.properties ?? {}).map(([name, schema]) => this.#help(name, schema));
  }
}

export async function kindSchema(apiVersion: string, kind: string): Promise<KindSchema> {
  const [group, version] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion];
  const groupVersion = group ? `apis/${group}/${version}` : `api/${version}`;
  const schemas = (await document(groupVersion)).components?.schemas ?? {};
  const root = Object.values(schemas).find((schema) => schema['x-kubernetes-group-version-kind']?.some((entry) => entry.group === group && entry.version === version && entry.kind === kind));
  if (!root) throw new Error(`the server has no schema of ${kind}`);
  return new KindSchema(schemas, root);
}
