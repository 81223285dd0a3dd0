"""The web demo: a page in which a picture is asked for what words name.

``visit`` knows what a visitor has seen and asked, and nothing of web pages; ``page`` lays it out
with gradio; ``serving`` says who may reach it and what it may hand out.
"""
