// Says when the live stream is lost, and since when: what a page shows then is as old as that.
import { useSyncExternalStore } from 'react';
import { stream } from '../api/stream';
import { formatDuration } from '../lib/time';
import { Button } from '../ui/basics';
import { useClock } from '../ui/clock';

export function ConnectionBanner() {
  const state = useSyncExternalStore(stream.subscribe, () => stream.state);
  const since = useClock((now) => formatDuration(now - stream.lostAt));
  if (state !== 'reconnecting') return null;
  return <div className="banner" role="status">Reconnecting. The connection was lost {since} ago; what you see is from then. <Button onClick={stream.retryNow}>Try now</Button></div>;
}
