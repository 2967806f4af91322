// A line to the server that can be cut, so that the examples have something to survive. Your client needs none.
import { connect, createServer } from 'node:net';

/** A port of this machine that leads to the server; `cut` ends every connection without a word. */
export async function openLine(url) {
  const { hostname, port, pathname } = new URL(url);
  const open = new Set();
  const server = createServer((client) => {
    const ours = [client, connect(port || 80, hostname)];
    ours.forEach((socket, nth) => {
      open.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => [open.delete(socket), ours[1 - nth].destroy()]);
    });
    ours[0].pipe(ours[1]).pipe(ours[0]);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const cut = () => open.forEach((socket) => socket.destroy());
  const end = () => [server.close(), cut()];
  return { url: `http://127.0.0.1:${server.address().port}${pathname}`, cut, end };
}
