// Passes requests and WebSocket upgrades on to the API server as the session's user.
import https from 'node:https';
import tls from 'node:tls';

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

export function proxyUpgrade(upstream, session, request, socket, head) {
  const { cert, key } = session.token ? {} : upstream.admin;
  const peer = tls.connect({ host: upstream.host, port: upstream.port, ca: upstream.ca, cert, key, ALPNProtocols: ['http/1.1'] }, () => {
    const headers = Object.entries(request.headers).filter(([name]) => !['cookie', 'host', 'origin'].includes(name));
    if (session.token) headers.push(['authorization', `Bearer ${session.token}`]);
    const lines = [`GET ${upstreamPath(request.url)} HTTP/1.1`, `host: ${upstream.host}:${upstream.port}`, ...headers.map(([name, value]) => `${name}: ${value}`)];
    peer.write(`${lines.join('\r\n')}\r\n\r\n`);
    peer.write(head);
    peer.pipe(socket).pipe(peer);
  });
  peer.on('error', () => socket.destroy());
  socket.on('error', () => peer.destroy());
}
