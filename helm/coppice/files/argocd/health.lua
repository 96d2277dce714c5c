-- Argo CD's question about every kind of Coppice, answered from the conditions that all of them have.
local health = { status = "Progressing", message = "Coppice has not looked at it yet" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "Coppice has not looked at the newest specification yet"
  return health
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
-- Its time is over and its data are gone; it comes back when somebody wants it again.
local ended = { Expired = true, PullRequestClosed = true }
local ready = found.Ready
if ready == nil then
  return health
end
health.message = ready.reason .. ": " .. ready.message
if ready.status == "True" then
  health.status = "Healthy"
elseif ended[ready.reason] then
  health.status = "Suspended"
elseif found.Stalled ~= nil and found.Stalled.status == "True" then
  health.status = "Degraded"
elseif found.Reconciling ~= nil and found.Reconciling.status == "False" then
  -- Asleep, switched off, or waiting for people.
  health.status = "Suspended"
end
return health
