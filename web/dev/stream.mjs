// `/stream` of the development server: many watches over one WebSocket.
import https from 'node:https';
import { WebSocketServer } from 'ws';
import { options } from './proxy.mjs';

const sockets = new WebSocketServer({ noServer: true });
const SESSION_ENDED = 4401;

function startWatch(upstream, session, send, path) {
  const request = https.request(options(upstream, session, 'GET', path, { accept: 'application/json' }), (answer) => {
    let rest = '';
    let status = '';
    answer.setEncoding('utf8');
    answer.on('data', (text) => {
      if (answer.statusCode !== 200) return void (status += text);
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      for (const line of lines) if (line) send({ event: JSON.parse(line) });
    });
    answer.on('error', () => send({ end: null }));
    answer.on('end', () => send({ end: status.startsWith('{') ? JSON.parse(status) : null }));
  });
  request.on('error', () => send({ end: null }));
  request.end();
  return () => request.destroy();
}

export function serveStream(upstream, session, request, socket, head) {
  return sockets.handleUpgrade(request, socket, head, (client) => {
    if (!session) return client.close(SESSION_ENDED, 'session ended');
    const watches = new Map();
    const stop = (id) => {
      watches.get(id)?.();
      watches.delete(id);
    };
    client.on('message', (text) => {
      const { op, id, path } = JSON.parse(text);
      stop(id);
      if (op !== 'start') return;
      const send = (message) => watches.has(id) && client.readyState === client.OPEN && client.send(JSON.stringify({ id, ...message }));
      watches.set(id, () => {});
      watches.set(id, startWatch(upstream, session, send, path));
    });
    const expiry = setTimeout(() => client.close(SESSION_ENDED, 'session ended'), Math.min(session.expires - Date.now(), 2 ** 31 - 1));
    client.on('close', () => {
      clearTimeout(expiry);
      for (const id of [...watches.keys()]) stop(id);
    });
  });
}
