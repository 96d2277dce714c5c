from tests.fakes.story import Story

async def test_it(story=None):
    story = Story()
    story.policies()
    story.store(protection=[{"branches": ["main"]}])
    await story.settle()
    story.commit("album/1.title=Blue", "album/2.title=Red")
    story.clone()
    await story.settle()
    story.expect_ready("DataClone", "db")
    v = story.world.volume("data", story.copy())
    b = v.branches["main"]
    b.rows = (b.rows - {"album/1.title=Blue"}) | {"album/1.title=Kind of Blue"}
    story.request()
    await story.settle()
    import json
    print(json.dumps(story.status("DataChangeRequest", "fix"), indent=1))
    story.review()
    await story.settle()
    print(json.dumps(story.status("DataChangeRequest", "fix"), indent=1))
    print(story.status("DataReview", "fix-bob"))
    print(story.data_of().branches, story.data_of().tags)
    print(story.names("DataClone"), story.names("NetworkPolicy"))
