/** The WebSocket that this package brings for old Node.js, against frames made by hand. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { after, before, test } from "node:test";

// Parts that the package does not hand out.
import { FrameReader, ProtocolError, frame } from "../dist/frames.js";
import { NodeWebSocket } from "../dist/node-websocket.js";

let server: Server;
let talk: (socket: Socket, key: string) => void;

before(async () => {
  server = createServer((socket) => {
    let head = "";
    const read = (data: Buffer) => {
      head += data.toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      socket.off("data", read);
      talk(socket, /sec-websocket-key: (\S+)/i.exec(head)?.[1] ?? "");
    };
    socket.on("data", read).on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
after(() => server.close());

const ACCEPT = (key: string, more = "Sec-WebSocket-Protocol: a\r\n") => {
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  return (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n" +
    `Sec-WebSocket-Accept: ${accept}\r\n${more}\r\n`
  );
};

interface Outcome {
  readonly messages: unknown[];
  readonly code: number;
  readonly reason: string;
  readonly isOpened: boolean;
}

/** Everything that happens on a connection, until it is closed. */
function outcome(say: (socket: Socket, key: string) => void, use = (_: NodeWebSocket) => {}): Promise<Outcome> {
  talk = say;
  const socket = new NodeWebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/`, ["a", "b"]);
  const messages: unknown[] = [];
  let isOpened = false;
  return new Promise((resolve) => {
    socket.onopen = () => {
      isOpened = true;
      use(socket);
    };
    socket.onmessage = ({ data }) => messages.push(data);
    socket.onclose = (end) => resolve({ messages, isOpened, ...end });
  });
}

const bytes = (...hex: string[]) => Buffer.from(hex.join(""), "hex");
const CLOSE = bytes("8802", "0fa4"); // 4004
const said = (...frames: Buffer[]) => (socket: Socket, key: string) => {
  socket.write(ACCEPT(key));
  socket.write(Buffer.concat([...frames, CLOSE]));
};

test("messages come whole and in order, however they are cut", async () => {
  const { messages, code, isOpened } = await outcome(
    said(
      bytes("8102", "6869"), // "hi"
      bytes("0102", "e282"), // a character in two parts, around a ping
      bytes("8901", "70"),
      bytes("8001", "ac"),
      bytes("827e", "0100", "07".repeat(256)),
    ),
  );
  assert.deepEqual(messages.slice(0, 2), ["hi", "€"]);
  assert.deepEqual(new Uint8Array(messages[2] as ArrayBuffer), new Uint8Array(256).fill(7));
  assert.deepEqual([code, isOpened], [4004, true]);
});

test("a frame may come a byte at a time, and as long as lengths go", () => {
  const reader = new FrameReader();
  const long = Buffer.alloc(70_000, "x");
  const head = bytes("827f", "0000000000011170");
  const found = [];
  for (const byte of Buffer.concat([bytes("8102", "6869"), head])) {
    for (const one of reader.put(Buffer.of(byte))) found.push(one);
  }
  for (let at = 0; at < long.length; at += 1000) {
    for (const one of reader.put(long.subarray(at, at + 1000))) found.push(one);
  }
  assert.deepEqual(found.map(({ opcode, payload }) => [opcode, payload.length]), [[1, 2], [2, 70_000]]);
});

test("what is sent is masked and arrives", async () => {
  for (const size of [0, 5, 125, 126, 65_535, 65_536]) {
    const sent = frame(2, new Uint8Array(size).map((_, i) => i));
    const head = size < 126 ? 2 : size < 65_536 ? 4 : 10;
    assert.equal(sent.length, head + 4 + size);
    assert.equal(sent[1]! & 0x80, 0x80);
    const mask = sent.subarray(head, head + 4);
    const payload = sent.subarray(head + 4).map((byte, i) => byte ^ mask[i & 3]!);
    assert.ok(payload.every((byte, i) => byte === (i & 0xff)));
  }
  const got: Buffer[] = [];
  await outcome(
    (socket, key) => {
      socket.write(ACCEPT(key));
      socket.on("data", (data: Buffer) => {
        got.push(data);
        socket.write(CLOSE);
      });
    },
    (socket) => socket.send("hello"),
  );
  const [first] = got;
  assert.ok(first && first[0] === 0x81 && first[1] === 0x85);
});

test("a ping is answered, a close is answered, a cut is no close", async () => {
  const heard: Buffer[] = [];
  const { code } = await outcome((socket, key) => {
    socket.write(ACCEPT(key));
    socket.write(Buffer.concat([bytes("8903", "616263"), CLOSE]));
    socket.on("data", (data: Buffer) => heard.push(data));
  });
  assert.equal(code, 4004);
  const all = Buffer.concat(heard);
  assert.deepEqual([all[0], all[1]], [0x8a, 0x83]);
  assert.equal(all[9], 0x88);
  const cut = await outcome((socket, key) => {
    socket.write(ACCEPT(key), () => socket.destroy());
  });
  assert.equal(cut.code, 1006);
  const bare = await outcome((socket, key) => {
    socket.write(ACCEPT(key));
    socket.write(bytes("8800"));
  });
  assert.equal(bare.code, 1005);
});

test("who does not speak the protocol is left", async () => {
  const wrong: [string, Buffer][] = [
    ["a reserved bit", bytes("c101", "61")],
    ["a masked frame", bytes("8181", "00000000", "61")],
    ["an unknown opcode", bytes("8301", "61")],
    ["a control frame in pieces", bytes("0901", "61")],
    ["a control frame that is too long", bytes("897e", "0080", "61".repeat(128))],
    ["a continuation of nothing", bytes("8001", "61")],
    ["a message in a message", bytes("0101", "61", "8101", "61")],
    ["a text that is none", bytes("8102", "c328")],
    ["a message without end", bytes("827f", "0000000100000000")],
  ];
  for (const [what, frames] of wrong) {
    const { code, messages, reason } = await outcome(said(frames));
    assert.equal(code, 1006, what);
    assert.deepEqual(messages, [], what);
    assert.match(reason, /./, what);
  }
  assert.throws(() => [...new FrameReader().put(bytes("8301"))], ProtocolError);
});

test("a handshake that is refused or wrong opens nothing", async () => {
  const answers: ((key: string) => string)[] = [
    () => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    () => ACCEPT("another key"),
    (key) => ACCEPT(key, ""),
    (key) => ACCEPT(key, "Sec-WebSocket-Protocol: c\r\n"),
    (key) => ACCEPT(key, "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Extensions: x\r\n"),
    () => "nonsense\r\n\r\n",
  ];
  for (const answer of answers) {
    const end = await outcome((socket, key) => void socket.end(answer(key)));
    assert.deepEqual([end.isOpened, end.code], [false, 1006]);
    assert.match(end.reason, /./);
  }
  const early = new NodeWebSocket("ws://127.0.0.1:9/", ["a"]);
  const closed = new Promise<number>((resolve) => (early.onclose = ({ code }) => resolve(code)));
  early.close();
  early.close();
  assert.equal(await closed, 1006);
});
