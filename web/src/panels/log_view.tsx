// Draws log lines: only those in view, follows the end until the reader scrolls up, marks what the search finds.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'react';
import { LONGEST_SHOWN, matcher, type LogLine } from '../lib/logs';
import { rowWindow } from '../lib/windowing';
import { Button, Empty } from '../ui/basics';

const LINE = 20;
/** Wrapped lines have no fixed height, so only the newest are drawn then. */
const MOST_WRAPPED = 1500;

interface Props {
  lines: LogLine[];
  search: string;
  onlyMatches: boolean;
  timestamps: boolean;
  sources: boolean;
  wrap: boolean;
}

export function LogView({ lines, search, onlyMatches, timestamps, sources, wrap }: Props) {
  const ref = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 500 });
  const [stuck, setStuck] = useState(true);
  const matches = useMemo(() => (search ? matcher(search) : undefined), [search]);
  const shown = useMemo(() => (matches && onlyMatches ? lines.filter((line) => matches(line.text)) : lines), [lines, matches, onlyMatches]);
  useEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setView((old) => ({ ...old, height: element.clientHeight })));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (stuck && ref.current) ref.current.scrollTop = ref.current.scrollHeight;
  }, [shown, stuck, wrap]);
  const onScroll = () => {
    const element = ref.current!;
    setView({ top: element.scrollTop, height: element.clientHeight });
    setStuck(element.scrollHeight - element.scrollTop - element.clientHeight < LINE * 1.5);
  };
  const windowed = wrap ? { first: Math.max(0, shown.length - MOST_WRAPPED), last: shown.length, before: 0, height: undefined } : rowWindow(shown.length, LINE, view.top, view.height, 20);
  return (
    <>
      <div ref={ref} className={wrap ? 'log-view log-wrapped' : 'log-view'} role="log" aria-label="Log lines" tabIndex={0} onScroll={onScroll}>
        {shown.length === 0 && <Empty title={lines.length ? 'No line matches.' : 'No lines yet.'} />}
        <div style={{ height: windowed.height }}><div style={{ transform: windowed.before ? `translateY(${windowed.before}px)` : undefined }}>
          {shown.slice(windowed.first, windowed.last).map((line) => (
            <div key={line.id} className={matches?.(line.text) ? 'log-line log-hit' : 'log-line'}>
              {timestamps && <span className="log-time">{line.time?.slice(0, 23).replace('T', ' ')}</span>}
              {sources && <span className="log-source" title={line.source}>{line.source}</span>}
              <span>{line.text.length > LONGEST_SHOWN ? `${line.text.slice(0, LONGEST_SHOWN)}… (${line.text.length} characters)` : line.text}</span>
            </div>
          ))}
        </div></div>
      </div>
      {!stuck && <div><Button onClick={() => setStuck(true)}>To the end</Button></div>}
    </>
  );
}
