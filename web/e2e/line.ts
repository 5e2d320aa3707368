// A line between the browser and the dashboard that a test can cut: whatever runs over it breaks, and nothing new gets
// through until it is mended. Loopback only.
import net from 'node:net';
import type { Server } from './browser';

export interface Line {
  /** The dashboard as it is reached over this line. */
  server: Server;
  cut(): void;
  mend(): void;
  stop(): Promise<void>;
}

export async function layLine(server: Server): Promise<Line> {
  const target = new URL(server.url);
  const ends = new Set<net.Socket>();
  let whole = true;
  const drop = (...sockets: net.Socket[]) => {
    for (const socket of sockets) {
      socket.destroy();
      ends.delete(socket);
    }
  };
  const exchange = net.createServer((near) => {
    if (!whole) return void near.destroy();
    const far = net.connect(Number(target.port), target.hostname);
    for (const [end, other] of [[near, far], [far, near]] as const) {
      ends.add(end);
      end.on('error', () => drop(near, far));
      end.on('close', () => drop(near, far));
      end.pipe(other);
    }
  });
  await new Promise<void>((resolve) => exchange.listen(0, '127.0.0.1', resolve));
  const { port } = exchange.address() as net.AddressInfo;
  const url = `${target.protocol}//127.0.0.1:${port}`;
  return {
    server: { ...server, url, link: async () => (await server.link()).replace(server.url, url) },
    cut: () => {
      whole = false;
      drop(...ends);
    },
    mend: () => void (whole = true),
    stop: () => {
      drop(...ends);
      return new Promise((resolve) => exchange.close(() => resolve()));
    },
  };
}
