// Which rows of a long list are in view. Browsers clip elements beyond some 16 million pixels, so the scrolled height is
// capped and the offset is scaled: 30,000 rows of 34 px fit, a million would too.

const TALLEST = 8_000_000;

export interface Window {
  first: number;
  last: number;
  /** Pixels above the first row. */
  before: number;
  height: number;
}

export function rowWindow(count: number, rowHeight: number, scrollTop: number, viewHeight: number, overscan = 8): Window {
  const full = count * rowHeight;
  const height = Math.min(full, TALLEST);
  const scale = height > viewHeight ? (full - viewHeight) / (height - viewHeight) : 1;
  const offset = Math.max(0, Math.min(scrollTop * scale, Math.max(0, full - viewHeight)));
  const first = Math.max(0, Math.floor(offset / rowHeight) - overscan);
  const last = Math.min(count, Math.ceil((offset + viewHeight) / rowHeight) + overscan);
  return { first, last, before: first * rowHeight - offset + scrollTop, height };
}

/** The scroll position that brings a row into view, or undefined when it is there. */
export function scrollToRow(index: number, rowHeight: number, scrollTop: number, viewHeight: number): number | undefined {
  const top = index * rowHeight;
  if (top < scrollTop) return top;
  if (top + rowHeight > scrollTop + viewHeight) return top + rowHeight - viewHeight;
  return undefined;
}
