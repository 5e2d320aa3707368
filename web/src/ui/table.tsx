// A table that draws only the rows in view: sorts, moves by arrow keys, opens with Enter. Rows have one height.
//
// Invariant: the focused row is kept by key, not by index, so that it stays under the cursor while rows come and go.
import { memo, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState, type KeyboardEvent, type MouseEvent, type ReactNode } from 'react';
import type { SortKey } from '../lib/compare';
import { Sorter } from '../lib/sorter';
import { rowWindow, scrollToRow } from '../lib/windowing';

export interface TableColumn<T> {
  id: string;
  title: string;
  width?: string;
  value(row: T): SortKey;
  render?(row: T): ReactNode;
  numeric?: boolean;
  wide?: boolean;
}

interface Props<T> {
  label: string;
  rows: readonly T[];
  columns: TableColumn<T>[];
  keyOf(row: T): string;
  onOpen?(row: T): void;
  sort?: { id: string; descending: boolean };
  onSort?(sort: { id: string; descending: boolean }): void;
  empty?: ReactNode;
  /** Grows with the rows up to the screen when absent. */
  rowClass?(row: T): string;
}

const ROW = 36;

/** On narrow screens tracks that may grow share what is there; fixed ones stay. */
function narrowWidth({ id, width }: { id: string; width?: string }): string {
  if (width && !width.startsWith('minmax')) return width;
  return id === 'name' ? 'minmax(6rem, 1.3fr)' : 'minmax(5rem, 1fr)';
}

function useSorted<T>(rows: readonly T[], columns: TableColumn<T>[], sort: { id: string; descending: boolean } | undefined, keyOf: (row: T) => string): readonly T[] {
  const [sorter] = useState(() => new Sorter(keyOf));
  const value = sort && columns.find((entry) => entry.id === sort.id)?.value;
  const descending = !!sort?.descending;
  return useMemo(() => (value ? sorter.sort(rows, { value, descending }) : rows), [sorter, rows, value, descending]);
}

export function Table<T>({ label, rows, columns, keyOf, onOpen, sort, onSort, empty, rowClass }: Props<T>) {
  const scroller = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const [focusKey, setFocusKey] = useState<string>();
  const sorted = useSorted(rows, columns, sort, keyOf);
  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    const measure = () => setView((old) => ({ ...old, height: element.clientHeight || 600 }));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const windowed = rowWindow(sorted.length, ROW, view.top, view.height);
  const template = columns.map((column) => column.width ?? 'minmax(6rem, 1fr)').join(' ');
  const narrow = columns.filter((column) => !column.wide).map(narrowWidth).join(' ');
  useEffect(() => {
    scroller.current?.style.setProperty('--columns', template);
    scroller.current?.style.setProperty('--columns-narrow', narrow);
  }, [template, narrow]);

  const latestOpen = useRef(onOpen);
  useEffect(() => {
    latestOpen.current = onOpen;
  });
  const open = useCallback((row: T) => latestOpen.current?.(row), []);
  const focusIndex = focusKey === undefined ? -1 : sorted.findIndex((row) => keyOf(row) === focusKey);
  const move = useCallback((index: number) => {
    const row = sorted[Math.max(0, Math.min(sorted.length - 1, index))];
    if (!row) return;
    setFocusKey(keyOf(row));
    const element = scroller.current;
    if (!element) return;
    const to = scrollToRow(sorted.indexOf(row), ROW, element.scrollTop, element.clientHeight - ROW);
    if (to !== undefined) element.scrollTop = to;
  }, [sorted, keyOf]);
  const page = Math.max(1, Math.floor(view.height / ROW) - 2);
  const keys: Record<string, () => void> = {
    ArrowDown: () => move(focusIndex + 1),
    ArrowUp: () => move(focusIndex - 1),
    PageDown: () => move(focusIndex + page),
    PageUp: () => move(focusIndex - page),
    Home: () => move(0),
    End: () => move(sorted.length - 1),
    Enter: () => sorted[focusIndex] && onOpen?.(sorted[focusIndex]),
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const action = event.target === scroller.current ? keys[event.key] : undefined;
    if (!action) return;
    event.preventDefault();
    action();
  };
  return (
    <div className="table-frame">
      <div ref={scroller} className="table" role="grid" aria-label={label} aria-rowcount={sorted.length + 1} tabIndex={0} aria-activedescendant={focusIndex >= 0 ? `row-${focusIndex}` : undefined} onKeyDown={onKeyDown} onScroll={(event) => { const top = event.currentTarget.scrollTop; setView((old) => ({ ...old, top })); }}>
        <Head columns={columns} sort={sort} onSort={onSort} />
        <div className="table-space" style={{ height: windowed.height }}>
          <div className="table-rows" style={{ transform: `translateY(${windowed.before}px)` }}>
            {sorted.slice(windowed.first, windowed.last).map((row, offset) => {
              const index = windowed.first + offset;
              const key = keyOf(row);
              return <Row key={key} row={row} index={index} columns={columns} focused={key === focusKey} opens={!!onOpen} extra={rowClass?.(row)} open={open} />;
            })}
          </div>
        </div>
      </div>
      {sorted.length === 0 && empty && <div className="table-empty">{empty}</div>}
    </div>
  );
}

interface RowProps<T> {
  row: T;
  index: number;
  columns: TableColumn<T>[];
  focused: boolean;
  opens: boolean;
  extra?: string;
  open(row: T): void;
}

function PlainRow<T>({ row, index, columns, focused, opens, extra, open }: RowProps<T>) {
  const onClick = (event: MouseEvent) => {
    const inner = (event.target as HTMLElement).closest('a,button');
    // A click that ends a selection of text is no wish to leave.
    if (!inner && !getSelection()?.toString()) open(row);
  };
  return (
    <div id={`row-${index}`} role="row" aria-rowindex={index + 2} aria-selected={focused} className={`row ${focused ? 'row-focused' : ''} ${opens ? 'row-open' : ''} ${extra ?? ''}`} onClick={onClick}>
      {columns.map((column) => <Cell key={column.id} column={column} row={row} />)}
    </div>
  );
}

/** Rows that did not change are not drawn again while others scroll by: objects are replaced, never changed in place. */
const Row = memo(PlainRow) as typeof PlainRow;

function Cell<T>({ column, row }: { column: TableColumn<T>; row: T }) {
  const value = column.value(row);
  const content = column.render ? column.render(row) : value;
  return <div role="gridcell" className={`cell ${column.numeric ? 'cell-number' : ''} ${column.wide ? 'cell-wide' : ''}`} title={!column.render && typeof value === 'string' ? value : undefined}>{content ?? <span className="faint">–</span>}</div>;
}

function Head<T>({ columns, sort, onSort }: Pick<Props<T>, 'columns' | 'sort' | 'onSort'>) {
  return (
    <div className="row row-head" role="row" aria-rowindex={1}>
      {columns.map((column) => {
        const active = sort?.id === column.id;
        const direction = active ? (sort.descending ? 'descending' : 'ascending') : 'none';
        return (
          <div key={column.id} role="columnheader" aria-sort={direction} className={`cell ${column.numeric ? 'cell-number' : ''} ${column.wide ? 'cell-wide' : ''}`}>
            {onSort ? <button type="button" className="sort" onClick={() => onSort({ id: column.id, descending: active && !sort.descending })}>{column.title}<span aria-hidden="true">{active ? (sort.descending ? ' ↓' : ' ↑') : ''}</span></button> : column.title}
          </div>
        );
      })}
    </div>
  );
}
