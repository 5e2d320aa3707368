// The small parts of the design system: badges, times, notes, buttons with reasons, key-value lists.
import { useId, type ButtonHTMLAttributes, type MouseEvent, type ReactNode } from 'react';
import { explain } from '../api/client';
import type { Health } from '../kinds/pod_status';
import { absolute, ageOf } from '../lib/time';
import { safeLink } from '../lib/links';
import { navigate } from '../router';
import { useClock } from './clock';

/** A link within the dashboard: an anchor, so that it opens in tabs too. */
export function Link({ to, children, className, title, onClick }: { to: string; children: ReactNode; className?: string; title?: string; onClick?: () => void }) {
  const follow = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    onClick?.();
    navigate(to);
  };
  return <a href={to} className={className} title={title} onClick={follow}>{children}</a>;
}

export function HealthBadge({ health }: { health: Health | undefined }) {
  if (!health) return null;
  return <span className={`badge badge-${health.level}`} title={health.reason}><span className="dot" aria-hidden="true" />{health.text}</span>;
}

export const Tag = ({ children, title, tone }: { children: ReactNode; title?: string; tone?: 'ok' | 'bad' | 'warn' }) => <span className={`tag${tone ? ` tag-${tone}` : ''}`} title={title}>{children}</span>;

export function RelativeTime({ time, suffix = '' }: { time: string | undefined; suffix?: string }) {
  const age = useClock((now) => ageOf(time, now));
  if (!time) return <span className="faint">–</span>;
  return <time dateTime={time} title={absolute(time)}>{age}{suffix}</time>;
}

/** A button that, when it may not be pressed, says why to everyone: in its tooltip and to screen readers. */
export function Button({ reason, tone, children, ...rest }: { reason?: string; tone?: 'primary' | 'danger' | 'quiet' } & ButtonHTMLAttributes<HTMLButtonElement>) {
  const id = useId();
  const off = !!reason;
  return (
    <>
      <button type="button" {...rest} className={`button ${tone ? `button-${tone}` : ''} ${rest.className ?? ''}`} aria-disabled={off || undefined} aria-describedby={off ? id : undefined} title={reason ?? rest.title} onClick={off ? (event) => event.preventDefault() : rest.onClick}>
        {children}
      </button>
      {off && <span id={id} className="sr-only">{reason}</span>}
    </>
  );
}

export const Spinner = ({ label = 'Loading' }: { label?: string }) => <p className="loading" role="status"><span className="spinner" aria-hidden="true" />{label}…</p>;

export const Empty = ({ title, children }: { title: string; children?: ReactNode }) => <div className="empty"><p className="empty-title">{title}</p>{children}</div>;

export function ErrorNote({ error, what, retry }: { error: unknown; what?: string; retry?: () => void }) {
  return (
    <div className="note note-bad" role="alert">
      {what && <strong>{what}</strong>}
      <p className="pre">{explain(error)}</p>
      {retry && <Button onClick={retry}>Try again</Button>}
    </div>
  );
}

export const Note = ({ tone = 'info', children }: { tone?: 'info' | 'warn' | 'bad' | 'ok'; children: ReactNode }) => <div className={`note note-${tone}`} role={tone === 'bad' ? 'alert' : 'status'}>{children}</div>;

export function Section({ title, actions, children, id }: { title: ReactNode; actions?: ReactNode; children: ReactNode; id?: string }) {
  return (
    <section className="section" id={id}>
      <header className="section-head"><h2>{title}</h2>{actions && <div className="section-actions">{actions}</div>}</header>
      {children}
    </section>
  );
}

export type Fact = [label: string, value: ReactNode];

export function Facts({ facts }: { facts: (Fact | undefined | false)[] }) {
  const shown = facts.filter((fact): fact is Fact => !!fact && fact[1] !== undefined && fact[1] !== null && fact[1] !== '');
  return <dl className="facts">{shown.map(([label, value]) => <div key={label}><dt>{label}</dt><dd>{value}</dd></div>)}</dl>;
}

/** Text of the cluster's: shown as text, an http or https address as a labelled link that opens apart. */
export function CellText({ text }: { text: string }) {
  const link = safeLink(text);
  if (!link) return <span className="wrap">{text}</span>;
  return <a className="wrap" href={link} target="_blank" rel="noopener noreferrer nofollow" title={`Opens ${link} in a new tab`}>{text} <span aria-hidden="true">↗</span></a>;
}

export function Labels({ labels, link }: { labels: Record<string, string> | undefined; link?: (key: string, value: string) => string }) {
  const entries = Object.entries(labels ?? {});
  if (!entries.length) return <span className="faint">none</span>;
  return (
    <ul className="labels">
      {entries.map(([key, value]) => {
        const text = value ? `${key}=${value}` : key;
        return <li key={key}>{link ? <Link to={link(key, value)} className="tag" title={`List what has ${text}`}>{text}</Link> : <Tag title={text}>{text}</Tag>}</li>;
      })}
    </ul>
  );
}

export function Meter({ value, max, label, detail }: { value: number; max: number; label: string; detail: string }) {
  const share = max > 0 ? Math.min(1, value / max) : 0;
  const level = share > 0.9 ? 'bad' : share > 0.75 ? 'warn' : 'ok';
  return (
    <div className="meter" role="meter" aria-label={label} aria-valuenow={Math.round(share * 100)} aria-valuemin={0} aria-valuemax={100} aria-valuetext={detail}>
      <div className="meter-text"><span>{label}</span><span>{detail}</span></div>
      <div className="meter-track"><div className={`meter-fill meter-${level}`} style={{ width: `${(share * 100).toFixed(1)}%` }} /></div>
    </div>
  );
}
