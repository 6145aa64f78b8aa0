'use strict';

// The ali-ons client against one cluster.
//
// Arguments: name server, prefix of topic and group names, features separated by commas. Prints
// one line a feature: `RESULT name ok seconds` or `RESULT name fail reason`.

const assert = require('assert');
const { Consumer, Message, Producer } = require('ali-ons');

const BOUND_MS = 40000;
const QUIET = { info() {}, debug() {}, warn() {}, error: console.error };

class Scope {
  constructor(namesrv, prefix, feature) {
    this.topic = `${prefix}-${feature}`;
    this.group = `g-${prefix}-${feature}`;
    this.closers = [];
    this.common = {
      nameSrv: namesrv,
      // Asked for even where no address server is: it must be there, and nobody calls it.
      httpclient: { request: async () => assert.fail('the address server was asked') },
      accessKeyId: 'unused',
      accessKeySecret: 'unused',
      logger: QUIET,
      pollNameServerInteval: 1000,
      rebalanceInterval: 500,
      persistConsumerOffsetInterval: 500,
    };
  }

  async start() {
    this.producer = new Producer({
      ...this.common, producerGroup: `p-${this.topic}`, instanceName: `p-${this.topic}`,
    });
    this.producer.on('error', err => console.error(err));
    await this.producer.ready();
    this.closers.push(() => this.producer.close());
    await this.createTopic();
  }

  /** This client gives up where the name server does not know a topic, so it makes it first. */
  async createTopic() {
    const client = this.producer._mqClient;
    const { brokerDatas } = await client.getDefaultTopicRouteInfoFromNameServer('TBW102', 3000);
    await client.createTopic(brokerDatas[0].brokerAddrs[0], 'TBW102', {
      topicName: this.topic, readQueueNums: 4, writeQueueNums: 4, perm: 6, topicSysFlag: 0,
      topicFilterType: 'SINGLE_TAG', order: false,
    }, 3000);
    const end = Date.now() + BOUND_MS;
    for (;;) {
      try {
        return await client.getTopicRouteInfoFromNameServer(this.topic, 3000);
      } catch (err) {
        if (Date.now() > end) throw err;
        await new Promise(resolve => setTimeout(resolve, 20));
      }
    }
  }

  body(i) {
    return `${this.topic} bödy ${i}`;
  }

  async send(from, to, tagOf) {
    const results = [];
    for (let i = from; i < to; i++) {
      const message = new Message(this.topic, tagOf(i), this.body(i));
      message.keys = [ `key-${i}` ];
      message.properties.number = String(i);
      const result = await this.producer.send(message);
      assert.strictEqual(result.sendStatus, 'SEND_OK');
      assert(result.msgId.length >= 32, `message id ${result.msgId}`);
      results.push(result);
    }
    return results;
  }

  /** Starts a consumer from the beginning of the topic; what it gets goes to the list it returns. */
  consume(expression, options = {}) {
    const consumer = new Consumer({
      ...this.common, consumerGroup: this.group, instanceName: `c${this.closers.length}-${this.topic}`,
      consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET', ...options,
    });
    consumer.on('error', err => console.error(err));
    const received = [];
    consumer.subscribe(this.topic, expression, async message => {
      received.push(message);
    });
    this.closers.push(() => consumer.close());
    return received;
  }

  check(received, from, to, tagOf) {
    const numbers = received.map(message => Number(message.properties.number)).sort((a, b) => a - b);
    assert.deepStrictEqual(numbers, Array.from({ length: to - from }, (_, i) => from + i));
    for (const message of received) {
      const i = Number(message.properties.number);
      assert.strictEqual(message.topic, this.topic);
      assert.strictEqual(message.body.toString(), this.body(i));
      assert.strictEqual(message.keys, `key-${i}`);
      assert.strictEqual(message.tags, tagOf(i));
      assert.strictEqual(message.reconsumeTimes, 0);
    }
  }

  async close() {
    for (const closer of this.closers.reverse()) {
      await closer();
    }
  }
}

async function count(received, expected) {
  const end = Date.now() + BOUND_MS;
  while (received.length < expected) {
    assert(Date.now() < end, `waited for ${expected} messages, have ${received.length}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

const tagA = () => 'TagA';

const features = {
  async sync(scope) {
    const results = await scope.send(0, 12, tagA);
    const received = scope.consume('*');
    await count(received, 12);
    scope.check(received, 0, 12, tagA);
    const ids = received.map(message => message.msgId).sort();
    assert.deepStrictEqual(ids, results.map(result => result.msgId).sort());
  },

  /** Both what was there before the consumer and what comes while it waits. */
  async push(scope) {
    await scope.send(0, 10, tagA);
    const received = scope.consume('*');
    await count(received, 10);
    await scope.send(10, 30, tagA);
    await count(received, 30);
    scope.check(received, 0, 30, tagA);
  },

  async tags(scope) {
    await scope.send(0, 30, i => [ 'TagA', 'TagB', 'TagC' ][i % 3]);
    const received = scope.consume('TagA || TagC');
    await count(received, 20);
    assert.strictEqual(received.filter(message => message.tags === 'TagA').length, 10);
    assert.strictEqual(received.filter(message => message.tags === 'TagC').length, 10);
  },

  async broadcast(scope) {
    await scope.send(0, 12, tagA);
    const members = [ 0, 1 ].map(() => scope.consume('*', { isBroadcast: true }));
    for (const received of members) {
      await count(received, 12);
      scope.check(received, 0, 12, tagA);
    }
  },
};

async function run(namesrv, prefix, name) {
  const begin = Date.now();
  const scope = new Scope(namesrv, prefix, name);
  let outcome;
  try {
    await scope.start();
    await features[name](scope);
    outcome = `ok ${((Date.now() - begin) / 1000).toFixed(2)}`;
  } catch (err) {
    console.error(err);
    outcome = `fail ${String(err.message || err).replace(/\s+/g, ' ')}`;
  }
  console.log(`RESULT ${name} ${outcome}`);
  await scope.close();
}

const [ namesrv, prefix, wanted ] = process.argv.slice(2);
Promise.all(wanted.split(',').map(name => run(namesrv, prefix, name))).then(
  () => process.exit(0),
  err => {
    console.error(err);
    process.exit(1);
  });
