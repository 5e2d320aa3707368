// Synthetic pods for the load test: N pods in the list, and a stream that changes them at a given rate.
const PHASES = ['Running', 'Running', 'Running', 'Pending', 'Failed'];

export class Synthetic {
  #revision = 1000;

  constructor(count, rate) {
    this.rate = rate;
    this.pods = Array.from({ length: count }, (_, index) => this.#pod(index, 0));
  }

  #pod(index, generation) {
    const ready = (index + generation) % 7 !== 0;
    const name = `load-${String(index).padStart(5, '0')}`;
    const namespace = `load-${index % 20}`;
    const image = `registry.windlass.local/${namespace}/app@sha256:${'0'.repeat(64)}`;
    return {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace, uid: `uid-${index}`, resourceVersion: String(this.#revision), creationTimestamp: new Date(Date.now() - 1000 * (index + 60)).toISOString(), labels: { app: `app-${index % 50}`, tier: index % 2 ? 'web' : 'worker' }, ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: `app-${index % 50}-abc`, uid: `rs-${index % 50}`, controller: true }] },
      spec: { nodeName: `node-${index % 100}`, containers: [{ name: 'app', image, resources: { requests: { cpu: '10m', memory: '16Mi' } } }], restartPolicy: 'Always' },
      status: { phase: PHASES[(index + generation) % PHASES.length], podIP: `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`, startTime: new Date().toISOString(), conditions: [{ type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: new Date().toISOString() }], containerStatuses: [{ name: 'app', image, ready, restartCount: generation, state: { running: { startedAt: new Date().toISOString() } } }] },
    };
  }

  /** Answers a list of all pods; false when there are no synthetic pods or another path is asked for. */
  list(url, response) {
    if (!this.pods.length || url.pathname !== '/kube/api/v1/pods') return false;
    const limit = Number(url.searchParams.get('limit') ?? this.pods.length);
    const start = Number(url.searchParams.get('continue') ?? 0);
    const next = start + limit < this.pods.length ? String(start + limit) : undefined;
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ kind: 'PodList', apiVersion: 'v1', metadata: { resourceVersion: String(this.#revision), continue: next }, items: this.pods.slice(start, start + limit) }));
    return true;
  }

  /** Streams changes of random pods; undefined when there are no synthetic pods or another path is watched. */
  watch(path, send) {
    if (!this.pods.length || !path.startsWith('/api/v1/pods?')) return undefined;
    let generation = 1;
    const perTick = Math.max(1, Math.round(this.rate / 50));
    const timer = setInterval(() => {
      for (let sent = 0; sent < perTick; sent += 1) {
        const index = Math.floor(Math.random() * this.pods.length);
        this.#revision += 1;
        this.pods[index] = this.#pod(index, (generation += 1));
        send({ event: { type: 'MODIFIED', object: this.pods[index] } });
      }
    }, 20);
    return () => clearInterval(timer);
  }
}
