-- What wrk runs: requests from two files in turn, and at the end one line of JSON. See wrk.py.
--
--     wrk ... -s wrk.lua URL -- BODIES INDEX
--
-- BODIES is the request bodies without anything between them; INDEX has a line for each, "LENGTH CONTENT-TYPE".

local requests = {}
local last = 0

function init(args)
  wrk.method = "POST"
  local bodies = assert(io.open(args[1], "rb"))
  for line in io.lines(args[2]) do
    local length, content_type = line:match("^(%d+) (.*)$")
    local body = bodies:read(tonumber(length))
    requests[#requests + 1] = wrk.format(nil, nil, { ["Content-Type"] = content_type }, body)
  end
  bodies:close()
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency, _)
  local errors = summary.errors
  local line = '{"requests": %d, "duration_us": %d, "mean_us": %f, "p50_us": %f, "p90_us": %f, "p99_us": %f, "max_us": %f, '
    .. '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n'
  io.write(line:format(summary.requests, summary.duration, latency.mean, latency:percentile(50.0),
    latency:percentile(90.0), latency:percentile(99.0), latency.max,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
