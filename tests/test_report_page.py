"""Tests of the page of ptlr_jax.report in a browser, Chromium without a window.

Debian's packages chromium and chromium-driver, or what CHROME and CHROMEDRIVER
name.
"""

import os
import shutil

import pytest

from tests.report_fixture import finished_run, write

pytest.importorskip("plotly", reason="pages need plotly")
pytest.importorskip("selenium", reason="the page is tried by selenium")
BROWSER = os.environ.get("CHROME") or shutil.which("chromium")
DRIVER = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
if not (BROWSER and DRIVER):
  pytest.skip("no Chromium and its driver here", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402


@pytest.fixture(scope="module")
def address(tmp_path_factory):
  """The page of a run, as it is opened from the disk."""
  folder = tmp_path_factory.mktemp("page")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)
    finished_run(folder / "run")
    write(folder / "run", folder / "page.html", "--bootstrap=20")
  return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
  options = webdriver.ChromeOptions()
  options.binary_location = str(BROWSER)
  profile = tmp_path_factory.mktemp("profile")
  for flag in (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    f"--user-data-dir={profile}",
  ):
    options.add_argument(flag)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  service = webdriver.ChromeService(str(DRIVER))
  driver = webdriver.Chrome(options=options, service=service)
  # Nothing may come from a network.
  driver.execute_cdp_cmd("Network.enable", {})
  driver.execute_cdp_cmd(
    "Network.emulateNetworkConditions",
    {
      "offline": True,
      "latency": 0,
      "downloadThroughput": -1,
      "uploadThroughput": -1,
    },
  )
  yield driver
  driver.quit()


@pytest.fixture(scope="module")
def loaded(browser, address):
  _wide(browser)
  browser.get(address)
  assert browser.execute_script("return document.documentElement.dataset.ready")
  return browser


@pytest.fixture
def opened(loaded):
  """The page as it is after loading; nothing may complain until the end."""
  _wide(loaded)
  _choose(loaded, "split", "test")
  _choose(loaded, "order", "worst")
  loaded.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
  yield loaded
  assert [entry["message"] for entry in loaded.get_log("browser")] == []


def _wide(driver, width=1200, height=900):
  driver.execute_cdp_cmd(
    "Emulation.setDeviceMetricsOverride",
    {
      "width": width,
      "height": height,
      "deviceScaleFactor": 1,
      "mobile": width < 500,
    },
  )


def _curves(driver):
  """The y of every curve of the timeline, by name."""
  script = """
    return Object.fromEntries(document.getElementById('timeline').data
      .filter(t => t.type === 'scatter').map(t => [t.name, Array.from(t.y)]))
  """
  return driver.execute_script(script)


def _range(driver):
  script = "return document.getElementById('timeline').layout.xaxis.range"
  return [float(x) for x in driver.execute_script(script)]


def _focused(driver):
  script = """
    const e = document.activeElement
    const s = getComputedStyle(e)
    return [e.id, e.tagName, s.outlineStyle, parseFloat(s.outlineWidth)]
  """
  return driver.execute_script(script)


def _shown(driver):
  return driver.find_element("id", "video").get_property("value")


def _tab_to(driver, name):
  """Presses Tab until the element has the focus."""
  for _ in range(80):
    driver.switch_to.active_element.send_keys(Keys.TAB)
    found = _focused(driver)
    if found[0] == name:
      return found
  raise AssertionError(f"Tab does not come to {name}")


def test_every_chart_is_drawn(opened):
  charts = opened.find_elements("css selector", ".chart")
  assert len(charts) == 6
  for chart in charts:
    assert chart.find_elements("css selector", ".trace path"), chart.id
  assert list(_curves(opened)) == ["ILG CAS", "OTS CAS", "RTS CAS"]
  lanes = opened.execute_script(
    "return document.getElementById('timeline').layout.yaxis2.ticktext"
  )
  assert lanes == ["ground truth", "run", "ilg"]


def test_a_video_is_picked_by_the_keyboard_and_the_plot_follows(opened):
  name, _, style, width = _tab_to(opened, "video")
  assert (name, style != "none", width >= 2) == ("video", True, True)
  before, first = _curves(opened), _shown(opened)
  opened.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
  assert _shown(opened) != first
  assert _curves(opened) != before
  assert opened.find_element("id", "said").text.startswith(_shown(opened))
  opened.switch_to.active_element.send_keys(Keys.ARROW_UP)
  assert (_shown(opened), _curves(opened)) == (first, before)


def test_the_timeline_zooms_and_moves_by_the_keyboard(opened):
  _, _, style, _ = _tab_to(opened, "frame")
  assert style != "none"
  whole = _range(opened)
  frame = opened.switch_to.active_element
  frame.send_keys("+")
  near = _range(opened)
  assert near[1] - near[0] == pytest.approx(0.6 * (whole[1] - whole[0]))
  frame.send_keys(Keys.ARROW_RIGHT)
  assert _range(opened)[0] > near[0]
  frame.send_keys("0")
  assert _range(opened) == whole


def test_the_worst_video_comes_first_and_the_best_if_asked(opened):
  script = """
    const data = JSON.parse(document.getElementById('data').textContent)
    return Object.fromEntries(data.videos.map(v => [v.id, v.ap[0]]))
  """
  ap = opened.execute_script(script)
  own = [v for v in ap.values() if v is not None]
  assert ap[_shown(opened)] == min(own)
  _choose(opened, "order", "best")
  assert ap[_shown(opened)] == max(own)


def _choose(driver, name, value):
  driver.execute_script(
    """
    const e = document.getElementById(arguments[0])
    e.value = arguments[1]
    e.dispatchEvent(new Event('change', {bubbles: true}))
    """,
    name,
    value,
  )


def test_a_training_video_has_a_lane_for_every_set_of_labels(opened):
  _choose(opened, "split", "training")
  lanes = opened.execute_script(
    "return document.getElementById('timeline').layout.yaxis2.ticktext"
  )
  assert lanes[1:4] == ["labels-0", "labels-1-ots", "labels-1-rts"]


def test_hovering_says_time_and_value(opened):
  script = """
    const plot = document.getElementById('timeline')
    plot.scrollIntoView({block: 'center'})
    Plotly.Fx.hover(plot, [{curveNumber: 1, pointNumber: 3}])
    return plot.querySelector('.hoverlayer').textContent
  """
  said = opened.execute_script(script)
  assert "OTS" in said
  assert "0:02.2" in said


def test_a_heading_sorts_the_classes(opened):
  head = opened.find_element("css selector", "table.sortable th button")
  head.send_keys(Keys.ENTER)
  cells = opened.find_elements("css selector", "table.sortable tbody th")
  assert [c.text for c in cells] == ["action_0", "action_1", "action_2"]
  head.send_keys(Keys.ENTER)
  cells = opened.find_elements("css selector", "table.sortable tbody th")
  assert [c.text for c in cells] == ["action_2", "action_1", "action_0"]


@pytest.mark.parametrize("width", [320, 390, 760])
def test_a_narrow_window_does_not_scroll_sideways(opened, width):
  _wide(opened, width, 800)
  if width == 320:
    opened.refresh()
  script = """
    const page = document.scrollingElement
    const chart = document.querySelector('#timeline .main-svg')
    return [innerWidth, page.scrollWidth - page.clientWidth,
      chart.getBoundingClientRect().right <= page.clientWidth]
  """

  def fits(driver):  # charts follow the window a moment later
    return driver.execute_script(script) == [width, 0, True]

  WebDriverWait(opened, 20).until(fits)


def test_a_dark_page_has_dark_charts(opened):
  opened.execute_cdp_cmd(
    "Emulation.setEmulatedMedia",
    {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
  )
  script = """
    return [getComputedStyle(document.body).backgroundColor,
      document.getElementById('timeline').layout.font.color]
  """

  def looks(*colours):  # a moment later
    WebDriverWait(opened, 20).until(
      lambda driver: driver.execute_script(script) == list(colours)
    )

  looks("rgb(20, 24, 29)", "#e4e8ec")
  opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
  looks("rgb(255, 255, 255)", "#1f2328")
