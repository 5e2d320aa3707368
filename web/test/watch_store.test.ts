// The watch store: list, watch, resume, start anew when the version is gone, survive a lost connection.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ApiError } from '../src/api/client';
import type { KubeList, KubeObject } from '../src/api/objects';
import type { WatchHandler } from '../src/api/stream';
import { WatchStore } from '../src/api/watch_store';

const pod = (name: string, resourceVersion: string): KubeObject => ({ metadata: { name, namespace: 'default', resourceVersion, managedFields: [{}] } });

class FakeStream {
  opened: string[] = [];
  handler: WatchHandler | undefined;
  open = (path: string, handler: WatchHandler) => {
    this.opened.push(path);
    this.handler = handler;
    return () => undefined;
  };
  forget = () => undefined;
}

function setUp(pages: (KubeList | Error)[]) {
  const stream = new FakeStream();
  const asked: string[] = [];
  const store = new WatchStore('/api/v1/pods', stream, (path) => {
    asked.push(path);
    const page = pages.shift();
    return page instanceof Error || !page ? Promise.reject(page ?? new Error('no page')) : Promise.resolve(page);
  });
  store.subscribe(() => undefined);
  store.start();
  return { stream, asked, store };
}

const names = (store: WatchStore) => store.snapshot.items.map((item) => item.metadata.name);
const settle = () => vi.advanceTimersByTimeAsync(1000);

describe('WatchStore', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('lists in pages, then watches from the version of the list', async () => {
    const { store, asked, stream } = setUp([{ metadata: { resourceVersion: '5', continue: 'c 1' }, items: [pod('a', '1')] }, { metadata: { resourceVersion: '5' }, items: [pod('b', '2')] }]);
    await settle();
    expect(names(store)).toEqual(['a', 'b']);
    expect(asked[1]).toContain('continue=c%201');
    expect(stream.opened).toEqual(['/api/v1/pods?watch=1&allowWatchBookmarks=true&resourceVersion=5']);
    expect(store.snapshot.items[0]!.metadata.managedFields).toBeUndefined();
  });

  it('applies events and resumes from the last version, bookmarks included', async () => {
    const { store, stream } = setUp([{ metadata: { resourceVersion: '5' }, items: [pod('a', '1')] }]);
    await settle();
    stream.handler!.event({ type: 'ADDED', object: pod('b', '6') });
    stream.handler!.event({ type: 'DELETED', object: pod('a', '7') });
    stream.handler!.event({ type: 'BOOKMARK', object: { metadata: { name: '', resourceVersion: '9' } } });
    await settle();
    expect(names(store)).toEqual(['b']);
    await vi.advanceTimersByTimeAsync(60_000);
    stream.handler!.end(null);
    expect(stream.opened.at(-1)).toContain('resourceVersion=9');
  });

  it('lists anew when its version is gone, and drops what vanished meanwhile', async () => {
    const { store, stream } = setUp([{ metadata: { resourceVersion: '5' }, items: [pod('a', '1'), pod('b', '2')] }, { metadata: { resourceVersion: '50' }, items: [pod('b', '2')] }]);
    await settle();
    stream.handler!.event({ type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired', metadata: { name: '' } } });
    await settle();
    expect(names(store)).toEqual(['b']);
    expect(stream.opened.at(-1)).toContain('resourceVersion=50');
  });

  it('keeps what it has while the connection is lost, and says so', async () => {
    const { store, stream } = setUp([{ metadata: { resourceVersion: '5' }, items: [pod('a', '1')] }]);
    await settle();
    stream.handler!.lost();
    expect(store.snapshot.phase).toBe('reconnecting');
    expect(names(store)).toEqual(['a']);
    stream.handler!.restored();
    expect(store.snapshot.phase).toBe('live');
    expect(stream.opened.at(-1)).toContain('resourceVersion=5');
  });

  it('reports a refusal, tries again later, and recovers', async () => {
    const { store } = setUp([new ApiError(403, 'Forbidden', 'no'), { metadata: { resourceVersion: '5' }, items: [pod('a', '1')] }]);
    await settle();
    expect(store.snapshot.phase).toBe('failed');
    expect(store.snapshot.error?.message).toBe('no');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(store.snapshot.phase).toBe('live');
    expect(store.snapshot.error).toBeUndefined();
  });

  it('does not storm a server whose watches end at once', async () => {
    const { store, stream } = setUp([{ metadata: { resourceVersion: '5' }, items: [] }]);
    await settle();
    stream.handler!.end(null);
    expect(store.snapshot.phase).toBe('reconnecting');
    expect(stream.opened).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(5000);
    expect(stream.opened).toHaveLength(2);
    expect(store.snapshot.phase).toBe('live');
  });

  it('tells its readers of a burst once', async () => {
    const { store, stream } = setUp([{ metadata: { resourceVersion: '5' }, items: [] }]);
    await settle();
    const { version } = store.snapshot;
    for (let index = 0; index < 1000; index += 1) stream.handler!.event({ type: 'ADDED', object: pod(`p${index}`, String(index + 6)) });
    await settle();
    expect(store.snapshot.version).toBe(version + 1);
    expect(store.snapshot.items).toHaveLength(1000);
  });
});
