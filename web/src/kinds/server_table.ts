// The columns that the server prints for a kind: what kubectl shows. The watch brings whole objects, not rows, so the
// rows are asked for again, at most once a second, when the watched list changed.
import { useEffect, useRef, useState } from 'react';
import { getJson } from '../api/client';
import { objectKey, type KubeObject } from '../api/objects';
import type { Snapshot } from '../api/watch_store';
import type { Column } from './columns';

interface Table {
  columnDefinitions: { name: string; type: string; priority: number; description?: string }[];
  rows: { cells: (string | number | boolean | null)[]; object: KubeObject }[];
}

const ACCEPT = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json';
const PAUSE = 1000;

function columnsFrom(table: Table): Column[] {
  const cells = new Map(table.rows.map((row) => [objectKey(row.object), row.cells]));
  const own = new Set(['name', 'age', 'namespace']);
  return table.columnDefinitions.flatMap((definition, index): Column[] => {
    if (own.has(definition.name.toLowerCase())) return [];
    const value = (object: KubeObject) => {
      const cell = cells.get(objectKey(object))?.[index];
      return typeof cell === 'number' ? cell : cell === null || cell === undefined ? undefined : String(cell);
    };
    const numeric = definition.type === 'integer' || definition.type === 'number';
    return [{ id: `server-${definition.name}`, title: definition.name, value, numeric, wide: definition.priority > 0 }];
  });
}

/** Columns of a collection as the server prints them; undefined path: none. */
export function useServerColumns(path: string | undefined, list: Snapshot): Column[] {
  const [columns, setColumns] = useState<{ path?: string; columns: Column[] }>({ columns: [] });
  const lastAt = useRef(0);
  useEffect(() => {
    if (!path || list.phase !== 'live') return undefined;
    const abort = new AbortController();
    const ask = async () => {
      lastAt.current = Date.now();
      const table = await getJson<Table>(`${path}?limit=5000`, { headers: { Accept: ACCEPT }, signal: abort.signal });
      if (table.columnDefinitions) setColumns({ path, columns: columnsFrom(table) });
    };
    const timer = setTimeout(() => void ask().catch(() => undefined), Math.max(0, lastAt.current + PAUSE - Date.now()));
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [path, list.phase, list.version]);
  return columns.path === path ? columns.columns : [];
}
