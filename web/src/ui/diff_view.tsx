// Shows the difference of two texts as hunks, added and removed lines marked by sign and colour.
import { useMemo } from 'react';
import { diffLines, hunks } from '../lib/diff';
import { Empty } from './basics';

const SIGNS = { same: ' ', added: '+', removed: '-' };

export function DiffView({ before, after, label = 'Difference' }: { before: string; after: string; label?: string }) {
  const parts = useMemo(() => hunks(diffLines(before, after)), [before, after]);
  if (!parts.length) return <Empty title="No difference" />;
  return (
    <div className="diff" role="region" aria-label={label} tabIndex={0}>
      {parts.map((part, index) => (
        <div key={index}>
          {part.skipped > 0 && <div className="diff-skip">{part.skipped} equal lines</div>}
          {part.lines.map((line, at) => (
            <div key={at} className={`diff-line diff-${line.kind}`}><span className="diff-number">{line.after ?? line.before}</span><span className="diff-sign">{SIGNS[line.kind]}</span><span className="diff-text">{line.text || ' '}</span></div>
          ))}
        </div>
      ))}
    </div>
  );
}
