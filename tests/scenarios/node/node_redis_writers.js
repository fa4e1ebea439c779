// An application on node-redis' cluster client while the cluster changes.
//
// The same as `rust/redis_rs_failover.rs`: one writer a hash tag writes numbered
// keys through one shared client, and says how far the slowest came. SIGTERM ends
// the writing; then all that was acknowledged is read back.
//
//   node node_redis_writers.js host:port pace-ms tag…

"use strict";

const { createCluster } = require("redis");

const PROGRESS_STEP = 20;
const SLOW_MS = 50;

const [address, paceText, ...tags] = process.argv.slice(2);
const pace = Number(paceText);
const records = tags.map((tag) => ({ tag, acknowledged: 0, errors: 0, longest: 0 }));
let done = false;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const key = (tag, number) => `${tag}:node-redis:${number}`;

async function write(cluster, record) {
  while (!done) {
    const number = record.acknowledged + 1;
    const begin = performance.now();
    try {
      await cluster.set(key(record.tag, number), String(number));
      record.acknowledged = number;
    } catch (error) {
      record.errors += 1;
      console.log(`error of ${record.tag}: ${error}`);
    }
    const waited = performance.now() - begin;
    if (waited > record.longest) {
      record.longest = waited;
      if (waited > SLOW_MS) console.log(`slow: ${waited.toFixed(0)} ms of ${record.tag}`);
    }
    await pause(pace);
  }
}

async function countLost(cluster, { tag, acknowledged }) {
  let lost = 0;
  for (let number = 1; number <= acknowledged; number++) {
    if ((await cluster.get(key(tag, number))) !== String(number)) lost += 1;
  }
  return lost;
}

function reportProgress() {
  let reported = 0;
  setInterval(() => {
    const slowest = Math.min(...records.map((record) => record.acknowledged));
    if (slowest >= reported + PROGRESS_STEP) {
      reported = slowest;
      console.log(`progress ${slowest} of the slowest writer`);
    }
  }, 20).unref();
}

async function main() {
  const cluster = createCluster({ rootNodes: [{ url: `redis://${address}` }] });
  // Connections that cannot be made again yet: the application is not concerned.
  cluster.on("error", (error) => console.log(`connection: ${error}`));
  await cluster.connect();
  process.on("SIGTERM", () => { done = true; });
  reportProgress();
  await Promise.all(records.map((record) => write(cluster, record)));

  let lost = 0;
  for (const record of records) lost += await countLost(cluster, record);
  const sum = (field) => records.reduce((total, record) => total + record[field], 0);
  const longest = Math.max(...records.map((record) => record.longest));
  console.log(
    `acknowledged ${sum("acknowledged")}, lost ${lost}, errors ${sum("errors")}, longest ${longest.toFixed(0)} ms`,
  );
  process.exit(lost > 0 ? 1 : 0);
}

main().catch((error) => {
  console.log(`error: ${error.stack}`);
  process.exit(1);
});
