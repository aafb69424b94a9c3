// Compares the fires of schedules with those of cron-parser: every zone, 2020 to 2035.
//
// usage: node compare.mjs FIRES FIXTURE      FIRES: the program of crates/kernel/examples/fires.rs
//
// cron-parser sees a zone only through its offsets, so zones with the same changes of the clock give the same fires: it is
// asked once for each such group, ours for every zone. Both must agree, but within a change of the clock: there ours fires
// once at the first instant after the gap, and never in the second pass of a doubled hour.
import { spawn, execFileSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { writeFileSync } from 'node:fs';
import parser from 'cron-parser';

const [, , fires, fixture] = process.argv;
const FROM = Date.UTC(2020, 0, 1), TO = Date.UTC(2036, 0, 1), DAY = 86_400_000;
// Patterns that fire seldom run over all sixteen years, the others two days around each change and at the start of each year.
const WHOLE = ['0 0 1 * *', '59 23 L * *', '30 2 * * 0', '15 8 * * 1-5', '0 9 1,15 * 1', '0 0 29 2 *'];
const AROUND = ['*/15 * * * *', '0,30 1-3 * * *', '30 2 * * *', '0 0 * * *', '5 */6 * * *'];
// What the fixture holds: some of each kind of zone, and the first years.
const KEPT = ['UTC', 'Europe/Vienna', 'America/New_York', 'America/St_Johns', 'Australia/Lord_Howe', 'Pacific/Chatham', 'Asia/Kathmandu',
  'Antarctica/Troll', 'America/Santiago', 'America/Havana'];
const KEPT_UNTIL = Date.UTC(2025, 0, 1), KEPT_WHOLE = new Set(['0 0 1 * *', '30 2 * * 0', '0 9 1,15 * 1']);

// The offsets of a zone as this program's time zone data has them: [[from when, seconds], …].
function changesOf(zone) {
  const format = new Intl.DateTimeFormat('en-US', { timeZone: zone, timeZoneName: 'longOffset', year: 'numeric' });
  const offset = (at) => {
    const name = format.formatToParts(at).find((part) => part.type === 'timeZoneName').value;
    const [, sign, hours, minutes, seconds] = /GMT(?:([+-])(\d+):(\d+)(?::(\d+))?)?/.exec(name);
    return sign ? (sign === '-' ? -1 : 1) * (hours * 3600 + minutes * 60 + Number(seconds ?? 0)) : 0;
  };
  const found = [[FROM, offset(FROM)]];
  for (let at = FROM; at < TO; at += 3 * DAY) {
    let [low, high] = [at, Math.min(at + 3 * DAY, TO)];
    if (offset(high) === offset(low)) continue;
    while (high - low > 1000) {
      const middle = Math.floor((low + high) / 2000) * 1000;
      if (offset(middle) === offset(low)) low = middle; else high = middle;
    }
    found.push([high, offset(high)]);
  }
  return found;
}

function theirs(zone, pattern, from, to) {
  const found = parser.CronExpressionParser.parse(pattern, { tz: zone, currentDate: new Date(from) });
  const minutes = [];
  // It gives up after so many steps, or gives one time again and again; what it gave until then is compared.
  const gaveUp = (why) => ({ minutes, until: (minutes.at(-1) ?? from / 60_000) + 1, gave: `${zone}\t${pattern}\t${new Date((minutes.at(-1) ?? from / 60_000) * 60_000).toISOString()}: ${why}` });
  for (;;) {
    let at;
    try {
      at = found.next().toDate().getTime();
    } catch (error) {
      return gaveUp(error.message);
    }
    if (at >= to) return { minutes, until: to / 60_000 };
    if (at / 60_000 <= (minutes.at(-1) ?? 0)) return gaveUp('it gives the same time again');
    minutes.push(at / 60_000);
  }
}

const program = spawn(fires, [], { stdio: ['pipe', 'pipe', 'inherit'] });
const lines = createInterface({ input: program.stdout })[Symbol.asyncIterator]();
async function ours(zone, pattern, from, to) {
  program.stdin.write(`${zone}\t${pattern}\t${from}\t${to}\n`);
  const { value } = await lines.next();
  let at = 0;
  return value.trim() === '' ? [] : value.trim().split(' ').map((step) => (at += Number(step)));
}

function packed(minutes) {
  const runs = [];
  minutes.forEach((at, index) => {
    const step = index === 0 ? at : at - minutes[index - 1];
    if (runs.length > 0 && runs.at(-1)[0] === step) runs.at(-1)[1] += 1; else runs.push([step, 1]);
  });
  return runs.map(([step, times]) => (times === 1 ? `${step}` : `${step}x${times}`)).join(' ');
}

// What is wrong with one list, and how many fires differ within a change.
function compare(mine, other, changes) {
  const shifts = changes.slice(1).map(([at, offset], index) => ({ at: at / 60_000, by: (offset - changes[index][1]) / 60 }));
  const [a, b] = [new Set(mine), new Set(other)];
  const wrong = [];
  let within = 0;
  for (const at of new Set([...mine, ...other])) {
    if (a.has(at) && b.has(at)) continue;
    // In the hour before a change that is not at a full hour cron-parser leaves out times that the clock shows; of hours that
    // come twice, two or three in a row as in Antarctica/Casey, it may take the second pass where ours takes the first.
    const shift = shifts.find((shift) => at >= shift.at - (a.has(at) ? Math.max(60, -shift.by) : 0) && at < shift.at + Math.abs(shift.by));
    if (shift === undefined) wrong.push(`${new Date(at * 60_000).toISOString()} only ${a.has(at) ? 'ours' : 'theirs'}`);
    else if (shift.by > 0 && at >= shift.at && !a.has(shift.at)) wrong.push(`${new Date(at * 60_000).toISOString()}: ours does not fire at the end of the gap`);
    else within += 1;
  }
  for (const shift of shifts.filter((shift) => shift.by < 0)) {
    for (const at of mine) if (at >= shift.at && at < shift.at - shift.by) wrong.push(`${new Date(at * 60_000).toISOString()}: ours fires in the second pass`);
  }
  return { wrong, within };
}

const groups = new Map();
const other = [];
for (const line of execFileSync(fires, ['zones'], { encoding: 'utf8' }).trim().split('\n')) {
  const [zone, written] = line.split('\t');
  const mine = written.split(' ').map((change) => change.split(',').map(Number));
  let known;
  try {
    known = changesOf(zone);
  } catch {
    other.push(`${zone} (not known to ICU)`);
    continue;
  }
  if (JSON.stringify(mine) !== JSON.stringify(known)) {
    const first = mine.findIndex((change, index) => JSON.stringify(change) !== JSON.stringify(known[index]));
    other.push(`${zone} (differs from ${new Date((mine[first] ?? known[first] ?? known.at(-1))[0]).toISOString().slice(0, 10)})`);
    continue;
  }
  const key = JSON.stringify(known);
  if (!groups.has(key)) groups.set(key, { changes: known, zones: [] });
  groups.get(key).zones.push(zone);
}

let [zones, lists, equal, within, done] = [0, 0, 0, 0, 0];
const wrong = [], kept = [], gaveUp = [];
for (const { changes, zones: members } of groups.values()) {
  const windows = [...changes.slice(1).map(([at]) => [at - 2 * DAY, at + 2 * DAY]), ...Array.from({ length: 16 }, (_, year) => [Date.UTC(2020 + year, 0, 1), Date.UTC(2020 + year, 0, 2)])];
  const jobs = [...WHOLE.map((pattern) => [pattern, FROM, TO]), ...AROUND.flatMap((pattern) => windows.map(([from, to]) => [pattern, from, to]))];
  zones += members.length;
  for (const [pattern, from, to] of jobs) {
    const { minutes: found, until, gave } = theirs(members[0], pattern, from, to);
    if (gave !== undefined) gaveUp.push(gave);
    for (const zone of members) {
      const mine = (await ours(zone, pattern, from, to)).filter((at) => at < until);
      const result = compare(mine, found, changes);
      lists += 1;
      within += result.within;
      equal += found.length - result.within;
      wrong.push(...result.wrong.map((text) => `${zone}\t${pattern}\t${text}`));
      const whole = to - from > 5 * DAY;
      if (gave === undefined && KEPT.includes(zone) && (whole ? KEPT_WHOLE.has(pattern) : to < KEPT_UNTIL)) kept.push(`${zone}\t${pattern}\t${from}\t${to}\t${packed(found)}`);
    }
  }
  done += 1;
  if (done % 20 === 0) console.error(`${done} of ${groups.size} groups of zones`);
}
program.stdin.end();
writeFileSync(fixture, kept.sort().join('\n') + '\n');
console.log(`${zones} zones (${groups.size} different ones), ${WHOLE.length + AROUND.length} patterns, ${lists} lists: ${equal} fires equal, ${within} differ within a change of the clock`);
console.log(`${other.length} zones left out, their time zone data differ (${process.versions.tz} here): ${other.join(', ')}`);
if (gaveUp.length > 0) console.log(`cron-parser gave up ${gaveUp.length} times, compared until then:\n${gaveUp.slice(0, 20).join('\n')}`);
console.log(wrong.length === 0 ? 'nothing else differs' : `${wrong.length} differ elsewhere:\n${wrong.slice(0, 40).join('\n')}`);
process.exit(wrong.length === 0 ? 0 : 1);
