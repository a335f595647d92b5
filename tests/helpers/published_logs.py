"""Small samples of the published logs in their raw formats.

Each writes events, given as (user, item, time in seconds), the way the published files hold them,
and returns the paths of the log and of the files that describe its items.
"""

import datetime
import gzip
import json
import pathlib

CHINA = datetime.timezone(datetime.timedelta(hours=8))


def amazon_reviews(directory: pathlib.Path, events, categories) -> tuple[str, str]:
    """reviews_Toys_5.json.gz and, as Python literals, meta_Toys.json.gz.

    Args:
        directory: Where to write.
        events: (user, item, time).
        categories: Item to its paths of categories; None leaves the item out of the metadata.
    """
    reviews = [
        {
            "reviewerID": user,
            "asin": item,
            "reviewerName": 'Anna "A."',
            "helpful": [0, 1],
            "reviewText": "It's fine,\nreally.",
            "overall": 5.0,
            "unixReviewTime": time,
            "reviewTime": f"{datetime.datetime.fromtimestamp(time, datetime.UTC):%m %d, %Y}",
        }
        for user, item, time in events
    ]
    metadata = [
        {
            "asin": item,
            "title": 'The "best" of Anna\'s\ttoys',
            "price": 7.99,
            "salesRank": {"Toys": 12},
            "related": {"also_bought": ["B000000001"]},
            **({} if not paths else {"categories": paths}),
        }
        for item, paths in categories.items()
        if paths is not None
    ]
    log, items = directory / "reviews_Toys_5.json.gz", directory / "meta_Toys.json.gz"
    log.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in reviews).encode()))
    items.write_bytes(gzip.compress("".join(f"{m!r}\n" for m in metadata).encode()))
    return str(log), str(items)


def taobao(directory: pathlib.Path, events, category, behaviours) -> tuple[str, None]:
    """UserBehavior.csv, which has no header.

    Args:
        directory: Where to write.
        events: (user, item, time).
        category: Of an item.
        behaviours: Of each event.
    """
    lines = [
        f"{user},{item},{category(item)},{behaviour},{time}\n"
        for (user, item, time), behaviour in zip(events, behaviours, strict=True)
    ]
    path = directory / "UserBehavior.csv"
    path.write_text("".join(lines))
    return str(path), None


def retailrocket(directory: pathlib.Path, events, behaviours, snapshots) -> tuple[str, str]:
    """events.csv and item_properties_part1.csv, _part2.csv, with times in milliseconds.

    Args:
        directory: Where to write.
        events: (user, item, time).
        behaviours: Of each event.
        snapshots: (time, item, property, value).
    """
    lines = ["timestamp,visitorid,event,itemid,transactionid\n"]
    for (user, item, time), behaviour in zip(events, behaviours, strict=True):
        transaction = "7" if behaviour == "transaction" else ""
        lines.append(f"{1000 * time},{user},{behaviour},{item},{transaction}\n")
    log = directory / "events.csv"
    log.write_text("".join(lines))
    for part in (1, 2):
        rows = [
            f"{1000 * time},{item},{name},{value}\n"
            for time, item, name, value in snapshots[part - 1 :: 2]
        ]
        path = directory / f"item_properties_part{part}.csv"
        path.write_text("".join(["timestamp,itemid,property,value\n", *rows]))
    return str(log), str(directory / "item_properties_part*.csv")


def alipay(directory: pathlib.Path, events, category, seller, actions) -> tuple[str, None]:
    """ijcai2016_taobao.csv.

    Args:
        directory: Where to write.
        events: (user, item, time).
        category: Of an item.
        seller: Of an item.
        actions: Of each event, 0 or 1.
    """
    lines = ["use_ID,sel_ID,ite_ID,cat_ID,act_ID,time\n"]
    for (user, item, time), action in zip(events, actions, strict=True):
        day = datetime.datetime.fromtimestamp(time, CHINA)
        lines.append(f"{user},{seller(item)},{item},{category(item)},{action},{day:%Y%m%d}\n")
    path = directory / "ijcai2016_taobao.csv"
    path.write_text("".join(lines))
    return str(path), None
