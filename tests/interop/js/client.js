// @grpc/grpc-js. What it prints is in ../README.md; INTEROP_PROTOS has the proto folders.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const { env } = process;
const SERVICE = "riskd.v1.OrderRiskService";
const NOBODY = "\tno body\r\n\u263a \u{1f608} %41\n";

const definitions = loader.loadSync(
  [
    "riskd/v1/order_risk_service.proto",
    "grpc/health/v1/health.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
  ],
  { includeDirs: env.INTEROP_PROTOS.split(":"), keepCase: true, longs: String, enums: String, defaults: true },
);
const root = grpc.loadPackageDefinition(definitions);

function credentials() {
  if (!env.INTEROP_CA) return grpc.credentials.createInsecure();
  const read = (path) => (path ? readFileSync(path) : null);
  return grpc.credentials.createSsl(
    read(env.INTEROP_CA), read(env.INTEROP_KEY), read(env.INTEROP_CERTIFICATE));
}

const options = env.INTEROP_CA ? { "grpc.ssl_target_name_override": "localhost" } : {};
const orders = new root.riskd.v1.OrderRiskService(env.INTEROP_ADDRESS, credentials(), options);
const healthClient = new root.grpc.health.v1.Health(env.INTEROP_ADDRESS, credentials(), options);

let nextId = BigInt(env.INTEROP_FIRST_ID);
const order = () => ({
  account_id: 7, instrument_id: 1, client_order_id: String(nextId++), side: "SIDE_BUY",
  order_type: "ORDER_TYPE_LIMIT", price_ticks: 120000, quantity_lots: 1, gateway_id: 3,
});
const inMs = (ms) => ({ deadline: Date.now() + ms });

function unaryCall(client, method, request, metadata = new grpc.Metadata(), call = inMs(60000)) {
  return new Promise((resolve, reject) => {
    client[method](request, metadata, call, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}
const checkOrder = (request, metadata) => unaryCall(orders, "CheckOrder", request, metadata);

function accepted(reply) {
  assert.equal(reply.decision, "DECISION_ACCEPTED");
  assert.notEqual(reply.reservation_id, "0");
  return reply.reservation_id;
}

async function failure(promise, ...codes) {
  const error = await promise.then(() => ({ code: grpc.status.OK }), (found) => found);
  assert.ok(codes.includes(error.code), `code ${error.code} ${error.details}, not ${codes}`);
  return error;
}

// The status that a stream ends with; its error event says the same once more.
function ended(call) {
  call.on("error", () => {});
  return new Promise((resolve) => call.on("status", resolve));
}

const cases = {
  async unary() {
    accepted(await checkOrder(order()));
  },
  async repeat() {
    const request = order();
    const first = await checkOrder(request);
    accepted(first);
    assert.deepEqual(await checkOrder(request), first);
  },
  async metadata() {
    const request = order();
    const first = await checkOrder(request);
    const metadata = new grpc.Metadata();
    metadata.set("x-text", "interop");
    metadata.set("x-raw-bin", Buffer.from([0, 255, 128]));
    assert.deepEqual(await checkOrder(request, metadata), first);
  },
  async batch() {
    const reply = await unaryCall(orders, "BatchCheckOrders", { orders: Array.from({ length: 64 }, () => order()) });
    assert.equal(new Set(reply.decisions.map(accepted)).size, 64);
  },
  async details() {
    const error = await failure(unaryCall(orders, "BatchCheckOrders", {}), grpc.status.INVALID_ARGUMENT);
    const [bytes] = error.metadata.get("grpc-status-details-bin");
    assert.ok(bytes, "no details");
    const status = definitions["google.rpc.Status"];
    const info = definitions["google.rpc.ErrorInfo"];
    const [detail] = status.deserialize(bytes).details;
    const found = info.deserialize(detail.value);
    assert.deepEqual([found.domain, found.reason], ["riskd", "REQUEST_MALFORMED"]);
  },
  async large() {
    const one = order();
    await failure(
      unaryCall(orders, "BatchCheckOrders", { orders: Array(Math.floor(2 ** 20 / 25)).fill(one) }),
      grpc.status.RESOURCE_EXHAUSTED, grpc.status.INVALID_ARGUMENT);
    await cases.unary();
  },
  async unimplemented() {
    const asIs = (bytes) => bytes;
    for (const method of [`/${SERVICE}/Nothing`, "/nobody.Nothing/Nothing"]) {
      const call = new Promise((resolve, reject) => {
        orders.makeUnaryRequest(method, asIs, asIs, Buffer.alloc(0), new grpc.Metadata(), inMs(60000),
          (error, reply) => (error ? reject(error) : resolve(reply)));
      });
      await failure(call, grpc.status.UNIMPLEMENTED);
    }
  },
  async deadline() {
    await cases.unary();
    const call = orders.StreamOrders(new grpc.Metadata(), inMs(200));
    call.on("data", () => {});
    assert.equal((await ended(call)).code, grpc.status.DEADLINE_EXCEEDED);
  },
  async cancel() {
    const call = orders.StreamOrders(new grpc.Metadata(), inMs(60000));
    const end = ended(call);
    call.write({ order: order() });
    accepted((await new Promise((resolve, reject) => {
      call.once("data", resolve);
      end.then((status) => reject(new Error(`ended: ${status.code} ${status.details}`)));
    })).order);
    call.cancel();
    assert.equal((await end).code, grpc.status.CANCELLED);
    await cases.unary();
  },
  async stream() {
    const call = orders.StreamOrders(new grpc.Metadata(), inMs(60000));
    const end = ended(call);
    const found = [];
    let wrong = null;
    call.on("data", (reply) => {
      try {
        found.push(BigInt(accepted(reply.order)));
      } catch (error) {
        wrong = error;
      }
    });
    for (let index = 0; index < 1000; index++) call.write({ order: order() });
    call.end();
    const status = await end;
    assert.equal(wrong, null);
    assert.equal(status.code, grpc.status.OK, status.details);
    assert.equal(found.length, 1000);
    assert.ok(found.every((each, index) => index === 0 || found[index - 1] < each), "out of order");
  },
  async health() {
    for (const service of ["", SERVICE]) {
      assert.equal((await unaryCall(healthClient, "Check", { service })).status, "SERVING");
    }
    const error = await failure(
      unaryCall(healthClient, "Check", { service: NOBODY }), grpc.status.NOT_FOUND);
    assert.equal(error.details, `service ${NOBODY} is unknown`);
  },
  async concurrent() {
    const calls = Number(env.INTEROP_CALLS);
    const seen = new Set();
    let left = calls;
    await Promise.all(Array.from({ length: 64 }, async () => {
      while (left-- > 0) seen.add(accepted(await checkOrder(order())));
    }));
    assert.equal(seen.size, calls);
  },
};

for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log(`${name}\tok`);
  } catch (error) {
    console.log(`${name}\tFAIL\t${String(error).replace(/\s+/g, " ")}`);
  }
}
orders.close();
healthClient.close();
