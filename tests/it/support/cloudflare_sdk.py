"""The official Python SDK against the simulator: a list made, filled, read over pages, changed,
emptied and deleted. The arguments are base URL, account and token; any surprise is an exception.
"""
import sys
import time

from cloudflare import BadRequestError, Cloudflare, RateLimitError

base_url, account, token = sys.argv[1:]
client = Cloudflare(api_token=token, base_url=base_url)
lists = client.rules.lists


def completed(begun):
    for _ in range(100):
        operation = lists.bulk_operations.get(begun.operation_id, account_id=account)
        if operation.status in ("completed", "failed"):
            assert operation.status == "completed", operation
            return
        time.sleep(0.05)
    raise AssertionError("the operation does not end")


def addresses():
    return [item.ip for item in lists.items.list(made.id, account_id=account)]


made = lists.create(account_id=account, kind="ip", name="sdk_list", description="by the SDK")
assert made.name in [known.name for known in lists.list(account_id=account)]

body = [{"ip": f"198.51.100.{n}", "comment": "sdk"} for n in range(60)]
completed(lists.items.create(made.id, account_id=account, body=body))
assert addresses() == [item["ip"] for item in body], "three pages of 25"
assert lists.get(made.id, account_id=account).num_items == 60

try:
    lists.items.create(made.id, account_id=account, body=[{"ip": "10.0.0.1"}, {"ip": "10.0.0.1/32"}])
    raise AssertionError("duplicates are taken")
except BadRequestError as refused:
    assert refused.body["errors"][0]["code"] == 10028, refused.body

items = list(lists.items.list(made.id, account_id=account))
gone = [{"id": item.id} for item in items[:59]]
begun = lists.items.delete(made.id, account_id=account, extra_body={"items": gone})
try:
    client.with_options(max_retries=0).rules.lists.items.update(made.id, account_id=account, body=[])
    raise AssertionError("two operations at once are taken")
except RateLimitError:
    pass
completed(begun)
assert addresses() == [items[59].ip]
assert lists.items.get(items[59].id, account_id=account, list_id=made.id).ip == items[59].ip

completed(lists.items.update(made.id, account_id=account, body=[{"ip": "2001:db8::/64"}]))
assert addresses() == ["2001:db8::/64"]
assert lists.update(made.id, account_id=account, description="new").description == "new"
completed(lists.items.update(made.id, account_id=account, body=[]))
assert addresses() == []
assert lists.delete(made.id, account_id=account).id == made.id
print("done")
