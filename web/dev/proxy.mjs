// Passes requests and WebSocket upgrades on to the API server as the session's user.
import https from 'node:https';
import tls from 'node:tls';
import { WebSocketServer } from 'ws';

const HOP_BY_HOP = ['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'cookie', 'host', 'origin', 'referer', 'x-windlass-request', 'authorization'];
const agents = new WeakMap();

/** Options of an https request to the API server with a session's credentials. */
export function options(upstream, session, method, target, headers = {}) {
  const key = session.token ? upstream : upstream.admin;
  if (!agents.has(key)) {
    const certificate = session.token ? {} : { cert: upstream.admin.cert, key: upstream.admin.key };
    agents.set(key, new https.Agent({ keepAlive: true, ca: upstream.ca, ...certificate }));
  }
  const credentials = session.token ? { authorization: `Bearer ${session.token}` } : {};
  return { host: upstream.host, port: upstream.port, method, path: target, headers: { ...headers, ...credentials }, agent: agents.get(key) };
}

/** One request with a JSON body and answer. */
export function ask(upstream, session, method, target, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(options(upstream, session, method, target, { 'content-type': 'application/json', accept: 'application/json' }), async (answer) => {
      const chunks = [];
      for await (const chunk of answer) chunks.push(chunk);
      const text = Buffer.concat(chunks).toString();
      resolve({ code: answer.statusCode, body: text.startsWith('{') ? JSON.parse(text) : text });
    });
    request.on('error', reject);
    request.end(body && JSON.stringify(body));
  });
}

const upstreamPath = (url) => (url.startsWith('/kube/') ? url.slice('/kube'.length) : url.slice('/registry'.length));

export function proxyRequest(upstream, session, request, response) {
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !HOP_BY_HOP.includes(name)));
  const passed = https.request(options(upstream, session, request.method, upstreamPath(request.url), headers), (answer) => {
    const kept = Object.fromEntries(Object.entries(answer.headers).filter(([name]) => !HOP_BY_HOP.includes(name)));
    if (kept.location?.startsWith('/v2/')) kept.location = `/registry${kept.location}`;
    response.writeHead(answer.statusCode, kept);
    response.flushHeaders();
    answer.pipe(response);
    answer.on('error', () => response.destroy());
  });
  passed.on('error', (error) => {
    if (response.headersSent) return response.destroy();
    response.writeHead(502, { 'Content-Type': 'application/json' });
    return response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', code: 502, reason: 'BadGateway', message: `the API server was not reached: ${error.message}` }));
  });
  response.on('close', () => passed.destroy());
  request.pipe(passed);
}

const refusals = new WebSocketServer({ noServer: true, handleProtocols: (offered) => [...offered][0] });
/** A browser can't read the answer to a refused upgrade: it is told by accepting and closing with this code and the reason. */
const UPGRADE_REFUSED = 4000;

function refuseUpgrade(request, socket, head, answer) {
  const body = answer.slice(answer.indexOf('\r\n\r\n') + 4);
  const json = body.slice(body.indexOf('{'), body.lastIndexOf('}') + 1);
  let reason = answer.split('\r\n')[0];
  try {
    reason = JSON.parse(json).message ?? reason;
  } catch {
    // No Status came with it: the status line has to do.
  }
  refusals.handleUpgrade(request, socket, head, (client) => client.close(UPGRADE_REFUSED, reason.slice(0, 120)));
}

export function proxyUpgrade(upstream, session, request, socket, head) {
  const { cert, key } = session.token ? {} : upstream.admin;
  const peer = tls.connect({ host: upstream.host, port: upstream.port, ca: upstream.ca, cert, key, ALPNProtocols: ['http/1.1'] }, () => {
    const headers = Object.entries(request.headers).filter(([name]) => !['cookie', 'host', 'origin'].includes(name));
    if (session.token) headers.push(['authorization', `Bearer ${session.token}`]);
    const lines = [`GET ${upstreamPath(request.url)} HTTP/1.1`, `host: ${upstream.host}:${upstream.port}`, ...headers.map(([name, value]) => `${name}: ${value}`)];
    peer.write(`${lines.join('\r\n')}\r\n\r\n`);
  });
  peer.once('data', (first) => {
    if (first.toString('latin1', 0, 12).endsWith(' 101')) {
      socket.write(first);
      peer.write(head);
      return peer.pipe(socket).pipe(peer);
    }
    // The body may come in a second piece: a short wait for it, then the refusal is told.
    let answer = first.toString();
    peer.on('data', (more) => (answer += more));
    return setTimeout(() => refuseUpgrade(request, socket, head, answer), 50);
  });
  peer.on('error', () => socket.destroy());
  socket.on('error', () => peer.destroy());
}
